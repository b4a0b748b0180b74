"""Programs in `examples/` do what they say: each is trained as its first lines say, on less."""

import csv
import re
import sys
import wave
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from lru.commands import main, run_train
from lru.dataloaders import DATASETS
from lru.layers import LAYERS, make_layer
from lru.plugins import load_plugins
from lru.tasks import TASKS
from lru.training.optimizer import OPTIMIZERS
from lru.training.trackers import read_jsonl

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
OWN = [path.stem for path in EXAMPLES if path.stem.startswith("own_")]

SMALL = {
    "own_dataset": ["--data_options", "n_train=20"],
    "own_recordings": ["--data_options", "samples_per_step=16"],
    "own_task": ["--steps", "6", "--updates_per_epoch", "3"],
    "patch_review": ["--data_options", "max_length=6", "n_val=4", "min_frequency=1"],
    "patch_text": ["--data_options", "n_val=100", "n_test=100", "--bptt", "6"],
}
"""What makes an example small; the others are on the adding problem."""
SMALL_DATA = ["--data_options", "n_train=20", "n_val=10", "n_test=10", "length=12"]
SMALL_MODEL = ["--n_layers", "1", "--d_model", "4", "--d_hidden", "3", "--batch_size", "10"]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """What examples register is gone after the test."""
    for registry in (DATASETS, LAYERS, OPTIMIZERS, TASKS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    yield
    for path in EXAMPLES:
        sys.modules.pop(f"plugin {path}", None)


def command(example):
    """The flags of the command in the first lines of an example, but for the length of training."""
    text = (FOLDER / f"{example}.py").read_text().replace("\\\n", "")
    words = re.search(r"^lru train (.*)$", text, re.MULTILINE)[1].split()
    at = words.index("--epochs")
    words[at : at + 2] = []
    return [str(FOLDER.parent / word) if word.endswith(".py") else word for word in words]


def train(example, folder, *more):
    """The log of a small training, and its exit status."""
    place = ["--runs_dir", folder, "--dir_name", folder / "cache", "--name", "run"]
    if example == "own_recordings":
        place += ["--raw_dir", recordings(folder / "raw")]
    small = [*SMALL.get(example, SMALL_DATA), *SMALL_MODEL, "--plots", "False", "--log_every", "2"]
    words = [*command(example), *small, "--max_steps", "4", *place, *more]
    status = run_train(list(map(str, words)))
    log = folder / "run" / "metrics.jsonl"
    return status, read_jsonl(log) if log.exists() else []


def recordings(raw_dir):
    """The raw folder with a few sounds of several lengths."""
    folder = raw_dir / "recordings"
    folder.mkdir(parents=True)
    for number in range(20):
        samples = np.random.default_rng(number).integers(-99, 99, 80 + 16 * number)
        with wave.open(str(folder / f"{number % 3}_{number}.wav"), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", None))
            sound.writeframes(samples.astype("<i2").tobytes())
    return raw_dir


@pytest.mark.parametrize("example", OWN)
def test_the_command_of_an_example_trains(example, tmp_path):
    status, log = train(example, tmp_path)
    assert (status, log[-1]["step"]) == (0, 4)
    assert all(np.isfinite(value) for line in log for value in line.values())


@pytest.mark.parametrize(
    ("example", "wrong", "message"),
    [
        ("own_layer", ["--half_life", "0"], "half_life must be positive, got 0"),
        ("own_task", ["--pulse_rate", "2"], "pulse_rate in (0, 1); got 6, 3 and 2"),
        ("own_optimizer", ["--beta", "1"], "beta must be in [0, 1), got 1"),
        (
            "own_layer",
            ["--model", "lru"],
            "half_life is an option of model 'leaky', but this run has model 'lru'",
        ),
    ],
)
def test_an_option_of_an_example_is_a_flag_and_a_wrong_one_is_refused(
    example, wrong, message, tmp_path, capsys
):
    assert train(example, tmp_path, *wrong) == (2, [])
    assert message in capsys.readouterr().err


def test_recordings_are_rows_as_long_as_they_are(tmp_path):
    load_plugins(str(FOLDER / "own_recordings.py"))
    data = DATASETS["recordings"](samples_per_step=16).load(
        recordings(tmp_path / "raw"), tmp_path / "cache"
    )
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }
    found = np.concatenate([split.lengths for split in data.splits.values()])
    assert sorted(found) == [5 + number for number in range(20)]
    assert (data.card.n_features, data.card.n_classes) == (9, 3)
    for split in data.splits.values():
        for row, (steps, label) in enumerate(zip(split.lengths, split.labels, strict=True)):
            # A file is called by its number, which is the seed of its samples and tells its length.
            number = int(steps) - 5
            samples = np.random.default_rng(number).integers(-99, 99, 80 + 16 * number)
            spectra = np.log1p(np.abs(np.fft.rfft(samples.reshape(-1, 16))))
            np.testing.assert_allclose(split.padded([row], steps)[0], spectra, rtol=1e-5)
            assert label == number % 3


def test_runs_of_a_layer_of_your_own_are_compared(tmp_path, capsys):
    train("own_layer", tmp_path)
    # As in a new process.
    sys.modules.pop(f"plugin {FOLDER / 'own_layer.py'}")
    del LAYERS._entries["leaky"]
    assert main(["compare", str(tmp_path / "run")]) == 2
    assert "own_layer.py; if you trust them, give --plugins" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "run"), "--trust_plugins"]) == 0
    assert "val/loss" in capsys.readouterr().out


def test_the_layer_goes_on_from_its_learned_start_after_a_reset():
    load_plugins(str(FOLDER / "own_layer.py"))
    layer = make_layer("leaky", 3, 4, {}, rngs=nnx.Rngs(0))
    layer.h_0[...] = jnp.array([1.0, -2.0, 0.5, 3.0])
    x = jax.random.normal(jax.random.key(0), (2, 7, 3))
    resets = jnp.zeros((2, 7), bool).at[0, 3].set(True)
    y, last = layer(x, resets=resets)
    fresh, fresh_last = layer(x[:1, 3:])
    whole, whole_last = layer(x[1:])
    np.testing.assert_allclose(y[0, 3:], fresh[0], rtol=1e-6)
    np.testing.assert_allclose(y[1], whole[0], rtol=1e-6)
    np.testing.assert_allclose(last, jnp.concatenate([fresh_last, whole_last]), rtol=1e-6)


def test_the_task_reports_its_metrics_on_its_three_splits(tmp_path):
    _, log = train("own_task", tmp_path)
    metrics = {"loss", "at_pulses", "between", "margin"}
    evaluations = [line for line in log if "val/loss" in line]
    assert [line["step"] for line in evaluations] == [3, 4]
    splits = ("val", "longer", "rarer")
    assert evaluations[-1].keys() == {
        *("step", "epoch"),
        *(f"{split}/{name}" for split in splits for name in metrics),
    }
    for split in splits:
        line = {name: evaluations[-1][f"{split}/{name}"] for name in metrics}
        shares = line["at_pulses"], line["between"]
        # The least of all margins is positive if every sign is right, and only then.
        assert (line["margin"] > 0) == (shares == (1, 1))
        assert all(0 <= share <= 1 for share in shares)


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_table_and_the_picture_of_the_task_are_in_the_folder_of_the_run(lanes, tmp_path):
    train("own_task", tmp_path, "--n_seeds", lanes)
    place = tmp_path / "run"
    names = [""] if lanes == 1 else ["lane0/", "lane1/"]
    tables = [place / "tables" / f"{name}first_row.csv" for name in names]
    assert sorted(place.rglob("*.csv")) == tables
    columns, *rows = csv.reader(tables[-1].read_text().splitlines())
    assert columns == ["sign", "output"]
    assert {float(sign) for sign, _ in rows} <= {-1, 1}
    with Image.open(place / "pictures" / f"{names[-1]}outputs.png") as outputs:
        assert outputs.size[0] == len(rows)
        grey = np.asarray(outputs)[0, :, 0] / 127.5 - 1
    np.testing.assert_allclose(grey, [np.clip(float(y), -1, 1) for _, y in rows], atol=0.01)


def test_the_batches_of_the_task_are_the_same_whenever_they_are_asked_for():
    load_plugins(str(FOLDER / "own_task.py"))
    module = sys.modules[f"plugin {FOLDER / 'own_task.py'}"]
    source = module.Drawn(2, 9, 0.3, 4, (0, 5))
    whole = [fed.batch for fed in source.epoch(1)]
    late = [fed.batch for fed in source.epoch(1, start=2)]
    jax.tree.map(np.testing.assert_array_equal, whole[2:], late)
    assert len({batch.signs.tobytes() for batch in jax.device_get(whole)}) == len(whole)
    other = module.Drawn(2, 9, 0.3, 4, (0, 6))
    assert np.any(next(other.epoch(1)).batch.inputs != whole[0].inputs)
    for batch in jax.device_get(whole):
        sign = batch.inputs[:, 0, 0]
        for t in range(9):
            sign = np.where(batch.inputs[:, t, 0] == 0, sign, batch.inputs[:, t, 0])
            np.testing.assert_array_equal(batch.signs[:, t], sign)


def test_the_optimiser_moves_every_parameter_by_its_rate():
    load_plugins(str(FOLDER / "own_optimizer.py"))
    signum = OPTIMIZERS["signum"]()
    layer = make_layer("lru", 3, 4, {}, rngs=nnx.Rngs(0))
    params = nnx.state(layer, nnx.Param)
    rule = signum.build(lambda count: 0.01)
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, -3), params)
    updates, _ = rule.update(grads, rule.init(params), params)
    np.testing.assert_allclose(updates["C"][...], 0.01, rtol=1e-6)
    np.testing.assert_allclose(updates["nu_log"][...], 0.0025, rtol=1e-6)


def opened(example, run, words, n_lines, capsys):
    """The last lines that a program prints of a run."""
    load_plugins(str(FOLDER / f"{example}.py"))
    sys.modules[f"plugin {FOLDER / example}.py"].main([str(run), *words])
    return capsys.readouterr().out.splitlines()[-n_lines:]


def test_verdicts_that_follow_a_patch_are_counted(tmp_path, few_files, capsys):
    status, _ = train("patch_review", tmp_path, "--raw_dir", few_files, "--max_steps", "40")
    assert status == 0
    lines = opened("patch_review", tmp_path / "run", ["--steps", "4"], 3, capsys)
    found = {name: share for share, name in (line.strip().split("  ") for line in lines)}
    assert list(found) == ["layer 0", "all layers", "all layers and what was pooled"]
    assert all(0 <= float(share.rstrip("%")) <= 100 for share in found.values())
    # Of one layer, whose last features alone are read.
    assert len(set(found.values())) == 1
    with pytest.raises(
        ValueError, match="steps must leave two rows with different verdicts, got 9"
    ):
        opened("patch_review", tmp_path / "run", ["--steps", "9"], 3, capsys)


def test_bits_that_a_patch_costs_are_measured_by_distance(tmp_path, few_files, capsys):
    status, _ = train("patch_text", tmp_path, "--raw_dir", few_files)
    assert status == 0
    head, *lines = opened("patch_text", tmp_path / "run", ["--steps", "20"], 3, capsys)
    assert head.split() == ["1", "to", "2", "3", "to", "8", "9", "to", "10"]
    ranges, found = sys.modules[f"plugin {FOLDER / 'patch_text'}.py"].costs(tmp_path / "run", 20, 9)
    assert ranges == [range(2), range(2, 8), range(8, 10)]
    assert list(found) == [line[:12].strip() for line in lines] == ["layer 0", "all layers"]
    assert found["layer 0"] == found["all layers"]
    assert np.all(np.isfinite(found["layer 0"]))
    assert found["layer 0"][0] != 0
    with pytest.raises(ValueError, match="steps must be at least 4 and leave two passages, got 60"):
        opened("patch_text", tmp_path / "run", ["--steps", "60"], 3, capsys)


@pytest.mark.parametrize("model", ["lru", "lstm"])
def test_an_agent_learns_on_rows_that_equal_those_it_played(model, monkeypatch, capsys):
    load_plugins(str(FOLDER / "recurrent_ppo.py"))
    ppo = sys.modules[f"plugin {FOLDER / 'recurrent_ppo.py'}"]
    monkeypatch.setattr(ppo, "ROWS", 8)
    monkeypatch.setattr(ppo, "STEPS", 12)
    agent = ppo.Agent(model, nnx.Rngs(0))
    games = ppo.new_games(jax.random.key(0)), agent.layer.initial_state(8), jnp.ones(8, bool)

    @jax.jit
    def replayed(key):
        going, *_ = ppo.roll_out(agent, 2, games, key)
        _, (x, played, _, _, first, _), _ = ppo.roll_out(agent, 2, going, key)
        late = jnp.roll(first, 1, axis=1)
        return first, played, [agent(x, going[1], marks) for marks in (first, late)]

    first, played, (same, other) = replayed(jax.random.key(1))
    assert first[:, 1:].any()
    np.testing.assert_allclose(same, played, atol=1e-5)
    assert np.abs(other - played).max() > 1e-3
    reward, end = jnp.ones((1, 3)), jnp.array([[False, True, False]])
    gain = ppo.advantages(jnp.array([[0.5, 1.0, 2.0]]), jnp.array([4.0]), reward, end)
    bare = [1 + 0.98 * 1 - 0.5, 1 - 1, 1 + 0.98 * 4 - 2]
    np.testing.assert_allclose(gain, [[bare[0] + 0.98 * 0.95 * bare[1], *bare[1:]]], rtol=1e-5)
    ppo.main(["--model", model, "--corridor", "2", "--updates", "20"])
    assert re.fullmatch(r"update 20: [0-9.]+ % of games won\n", capsys.readouterr().out)
