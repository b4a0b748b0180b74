"""Checkpoints of RVQE: what they hold, and files that are refused."""

import argparse
import math
import os
import pickle
import sys

import numpy as np
import pytest

from lru.commands import main
from lru.experiment import load_model
from lru.interop.rvqe import read_checkpoint, stacked, stacked_state, unstacked
from lru.training.checkpoints import Checkpoints
from lru.training.runs import find_run
from lru.training.trackers import read_jsonl

# Workspace, stages, input width; of degree 2 a neuron has 4 + 6 weights.
CELL = (3, 2, 2)
SIZES = {
    "phi": (3, 3, 10),
    "theta": (3, 3),
    "rotations": (2, 3),
    "output_phi": (2, 10),
    "output_theta": (2,),
}


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def command_train():
    """Stands for the function of RVQE that its arguments name."""


command_train.__module__ = "__mp_main__"


@pytest.fixture
def torch(monkeypatch):
    """PyTorch, which writes the files, in a process that RVQE started."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setitem(sys.modules, "__mp_main__", sys.modules[__name__])
    return torch


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {key: rng.standard_normal(shape, np.float32) for key, shape in SIZES.items()}


@pytest.fixture
def content(torch, arrays):
    """The object in a checkpoint, after one update by AdamW, and the optimiser."""
    model = {name: torch.tensor(value) for name, value in unstacked(arrays).items()}
    parameters = [value.requires_grad_() for value in model.values()]
    optimizer = torch.optim.AdamW(parameters, lr=0.25)
    sum((value**2).sum() for value in parameters).backward()
    optimizer.step()
    return {
        "epoch": 7,
        "best_validation_loss": torch.tensor(0.5),
        "best_character_error_rate": torch.tensor(0.25, dtype=torch.float64),
        "model_state_dict": {f"module.{name}": value.detach() for name, value in model.items()},
        "optimizer_state_dict": optimizer.state_dict(),
        "_original_args": argparse.Namespace(
            workspace=3, tag="x", timeout=None, func=command_train
        ),
        "_torch_rng_state": torch.arange(3, dtype=torch.uint8),
    }


@pytest.fixture
def save(torch, tmp_path):
    """A function that writes an object as PyTorch did, and gives the path."""

    def save(content, **options):
        path = tmp_path / "checkpoint.tar"
        torch.save(content, path, **{"_use_new_zipfile_serialization": False} | options)
        return path

    return save


def test_all_that_a_checkpoint_holds(content, save):
    read = read_checkpoint(save(content))
    assert (read.epoch, read.best_validation_loss, read.best_character_error_rate) == (7, 0.5, 0.25)
    assert read.arguments == {"workspace": 3, "tag": "x", "timeout": None}
    assert read.hyperparameters["lr"] == 0.25
    assert list(read.others) == ["_torch_rng_state"]
    np.testing.assert_array_equal(read.others["_torch_rng_state"], np.arange(3, dtype=np.uint8))
    assert [f"module.{name}" for name in read.parameters] == list(content["model_state_dict"])
    step, state = stacked_state(read, *CELL)
    assert step == 1
    found = {"": stacked(read.parameters, *CELL), **state}
    assert list(found) == ["", "exp_avg", "exp_avg_sq"]
    for kind, stack in found.items():
        assert {key: value.shape for key, value in stack.items()} == SIZES
        by_name = unstacked(stack)
        states = content["optimizer_state_dict"]["state"].values()
        expected = [each[kind] for each in states] if kind else content["model_state_dict"].values()
        for name, value in zip(read.parameters, expected, strict=True):
            np.testing.assert_array_equal(by_name[name], value.numpy(), err_msg=name)


def test_neurons_and_stages_are_in_their_order(arrays):
    by_name = unstacked(arrays)
    for name, value in {
        "cell.input_layer.2.φ": arrays["phi"][0, 2],
        "cell.kernel_layer.1.3.θ": arrays["theta"][2, 2],
        "cell.kernel_layer.0.0.θs": arrays["rotations"][0],
        "cell.output_layer.1.φ": arrays["output_phi"][1],
    }.items():
        np.testing.assert_array_equal(by_name[name], value)
    without_stages = {key: value[:1] for key, value in arrays.items() if key in ("phi", "theta")}
    without_stages = arrays | without_stages | {"rotations": arrays["rotations"][:0]}
    for key, value in stacked(unstacked(without_stages), 3, 0, 2).items():
        np.testing.assert_array_equal(value, without_stages[key])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell.input_layer.0.φ": None}, r"for a cell of .* parameters lack cell.input_layer.0.φ$"),
        ({"cell.x": np.zeros(1)}, "parameters have, and it has not, cell.x$"),
        ({"cell.kernel_layer.0.0.θs": np.zeros(4)}, r"0.θs has shape \(4,\), but .* allows \(3,\)"),
        ({"cell.input_layer.1.φ": np.zeros(4)}, r"1.φ has shape \(4,\), but .* allows \(10,\)"),
        ({"cell.output_layer.0.θ": np.zeros(1)}, r"0.θ has shape \(1,\), but .* allows \(\)"),
    ],
)
def test_parameters_of_another_cell_are_refused(arrays, change, message):
    given = {k: v for k, v in (unstacked(arrays) | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        stacked(given, *CELL)


def test_weights_of_no_degree_are_refused(arrays):
    given = unstacked({key: value[..., :9] for key, value in arrays.items()})
    message = r"has shape \(9,\), but .* allows \(4,\) or \(10,\) or \(14,\) or \(15,\)$"
    with pytest.raises(ValueError, match=message):
        stacked(given, *CELL)


def test_an_optimizer_that_keeps_no_arrays_of_parameters_is_refused(torch, content, save):
    kept = content["optimizer_state_dict"]["state"]
    for key in list(kept)[1:]:
        del kept[key]
    content["_original_args"].optimizer = "lbfgs"
    with pytest.raises(ValueError, match="the optimiser 'lbfgs' of the checkpoint keeps no array"):
        stacked_state(read_checkpoint(save(content)), *CELL)


def test_code_is_refused_and_does_not_run(content, save, tmp_path):
    trace = tmp_path / "trace"
    content["_original_args"].tag = Attack(trace)
    path = save(content)
    with pytest.raises(ValueError, match=r"no checkpoint of RVQE \(it asks for posix.system"):
        read_checkpoint(path)
    parts = [0x1950A86A20F9469CFC6C, 1001, {}, {}]
    for place in range(len(parts) + 1):
        dumped = [pickle.dumps(part, 2) for part in parts]
        dumped.insert(place, pickle.dumps(Attack(trace), 2))
        path.write_bytes(b"".join(dumped))
        with pytest.raises(ValueError, match=r"no checkpoint of RVQE \(it asks for posix.system"):
            read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("length", [0, 3, 15, 18, 200, 0.4, 0.9, -1])
def test_a_file_that_ends_too_early_is_refused(content, save, length):
    path = save(content)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(length * len(whole)) if 0 < length < 1 else length])
    with pytest.raises(ValueError, match="is no checkpoint of RVQE"):
        read_checkpoint(path)


def test_other_files_are_refused(torch, content, save):
    with pytest.raises(ValueError, match="it is a zip archive, as PyTorch writes"):
        read_checkpoint(save(content, _use_new_zipfile_serialization=True))
    del content["epoch"], content["_original_args"]
    with pytest.raises(ValueError, match="it lacks epoch, _original_args"):
        read_checkpoint(save(content))
    with pytest.raises(ValueError, match=r"it asks for torch\.HalfStorage"):
        read_checkpoint(save({"epoch": torch.zeros(1, dtype=torch.float16)}))
    path = save([])
    path.write_bytes(pickle.dumps(1) * 5)
    with pytest.raises(ValueError, match="it is no file of PyTorch"):
        read_checkpoint(path)


class Storage:
    """Stands for a storage where PyTorch would write one."""


class Tensor:
    """A tensor of a storage of two numbers."""

    def __init__(self, rebuild, offset, shape, strides):
        self.reduced = rebuild, (Storage(), offset, shape, strides, False, {})

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("kind", "length", "offset", "shape", "strides"),
    [
        ("FloatStorage", 2, 0, (3,), (1,)),
        ("FloatStorage", 2, 2, (1,), (1,)),
        ("FloatStorage", 2, -1, (1,), (1,)),
        ("FloatStorage", 2, 0, (2,), (-1,)),
        ("FloatStorage", 10**9, 0, (1,), (1,)),
        ("O", 2, 0, (2,), (1,)),
    ],
)
def test_arrays_outside_of_their_numbers_are_refused(
    torch, content, save, kind, length, offset, shape, strides
):
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            known = getattr(torch, kind, kind)
            return ("storage", known, "0", "cpu", length, None) if type(obj) is Storage else None

    path = save([])
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {}):
            pickle.dump(part, file, 2)
        tensor = Tensor(torch._utils._rebuild_tensor_v2, offset, shape, strides)
        Pickler(file, 2).dump({"epoch": tensor})
        pickle.dump(["0"], file, 2)
        file.write((2).to_bytes(8, "little") + bytes(64))
    with pytest.raises(ValueError, match=r"is no checkpoint of RVQE \((?!it lacks)"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "epoch", "error_rate", "weights"),
    [
        ("mnist-tsne-d2-r5--0fed81--2020-06-02--00-43-51", 4900, 0.0711, 129),
        ("mnist01-gen--7125e7--2020-05-23--08-28-58", 1460, 0.3384, 45),
    ],
)
def test_the_published_checkpoints(real_data, name, epoch, error_rate, weights):
    folder = real_data / "mnist_quantum" / "checkpoints"
    (path,) = list(folder.glob(f"*-{name}.tar")) or [None]
    if path is None:
        pytest.skip(f"real data needed: {folder}/*-{name}.tar is missing")
    read = read_checkpoint(path)
    assert (read.epoch, round(read.best_character_error_rate, 4)) == (epoch, error_rate)
    sizes = [read.arguments[flag] for flag in ("workspace", "stages", "degree")]
    parameters = stacked(read.parameters, *sizes[:2], 2)
    workspace, stages, degree = sizes
    assert weights == sum(math.comb(workspace + 1, k) for k in range(1, degree + 1))
    total = (workspace * (1 + stages) + 2) * (weights + 1) + stages * workspace
    assert sum(value.size for value in parameters.values()) == total
    step, state = stacked_state(read, *sizes[:2], 2)
    assert step == epoch + 1
    assert list(state) == ["exp_avg", "exp_avg_sq"]
    assert all((value >= 0).all() for value in state["exp_avg_sq"].values())


@pytest.fixture
def of_xor(content):
    """The checkpoint as one on elman-xor, after one of three updates."""
    given = argparse.Namespace(
        **{"workspace": 3, "stages": 2, "order": 2, "degree": 2, "initial_bias": 1.5},
        **{"initial_bias_spread": 0.1, "initial_weights_spread": 0.0},
        **{"initial_unitaries_spread": 0.01, "dataset": "elman-xor", "sentence_length": 9},
        **{"batch_size": 2, "num_shards": 3, "optimizer": "adam", "learning_rate": 0.25},
        **{"weight_decay": 0.0, "epochs": 3, "seed": 11, "stop_at_loss": None},
        func=command_train,
    )
    return content | {"epoch": 0, "_original_args": given}


@pytest.fixture
def import_run(tmp_path, save):
    """A function that imports a checkpoint by the command; its exit status."""

    def call(content, *more):
        folders = ["--runs_dir", str(tmp_path), "--dir_name", str(tmp_path / "cache")]
        return main(["import-rvqe", str(save(content)), "--name", "published", *folders, *more])

    return call


def test_a_run_goes_on_where_the_checkpoint_was_taken(of_xor, import_run, tmp_path):
    assert import_run(of_xor) == 0
    run = find_run("published", str(tmp_path))
    trained = load_model(run)
    assert (trained.update, trained.config.data.batch_size) == (1, 6)
    assert trained.config.model.options["initial_bias"] == 1.5
    assert trained.data.card.max_length == 8
    checkpoint = read_checkpoint(tmp_path / "checkpoint.tar")
    for name, array in stacked(checkpoint.parameters, *CELL).items():
        np.testing.assert_array_equal(getattr(trained.model, name)[...], array)
    manager = Checkpoints(run.checkpoints, read_only=True)._manager("unevaluated")
    saved = manager.restore(1)["state"]
    _, kept = stacked_state(checkpoint, *CELL)
    for slot, name in (("exp_avg", "mu"), ("exp_avg_sq", "nu")):
        for key, array in kept[slot].items():
            (found,) = [v for n, v in saved.items() if f"/{name}/" in n and f"/{key}" in n]
            np.testing.assert_array_equal(found, array)
    assert {int(v) for n, v in saved.items() if n.endswith("/count")} == {1}
    folders = ["--runs_dir", str(tmp_path), "--dir_name", str(tmp_path / "cache")]
    assert main(["train", "--name", "published", *folders, "--plots", "False"]) == 0
    assert [line["step"] for line in read_jsonl(run.metrics_file)] == [3, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lbfgs"}, "must be adam, rmsprop, sgd, whose states can be taken over"),
        (
            {"degree": 1},
            "output_phi has shape (2, 10) in the checkpoint, but its arguments make it",
        ),
        ({"workspace": 2}, "for a cell of workspace 2, stages 2 and input width 2 the parameters"),
        ({"dataset": "dna"}, "for a cell of workspace 3, stages 2 and input width 3"),
        ({"dataset": "mine"}, "unknown data set 'mine'; known:"),
    ],
)
def test_a_checkpoint_that_does_not_match_leaves_no_run(
    of_xor, import_run, tmp_path, capsys, changes, message
):
    vars(of_xor["_original_args"]).update(changes)
    assert import_run(of_xor) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "published").exists()


def test_arguments_that_a_checkpoint_lacks_are_named(of_xor, import_run, capsys):
    del of_xor["_original_args"].order, of_xor["_original_args"].epochs
    assert import_run(of_xor) == 2
    assert "the arguments of the checkpoint lack epochs, order" in capsys.readouterr().err


def test_a_run_is_not_written_over(of_xor, import_run, capsys):
    assert import_run(of_xor) == 0
    assert import_run(of_xor) == 2
    assert "name: there is a run in" in capsys.readouterr().err
