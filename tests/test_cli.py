"""The command from end to end: listings, runs, reports, and one clear sentence for bad input."""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import pytest
from flax import nnx

from lru import experiment
from lru.commands import main as verbs
from lru.commands import run_train as main
from lru.dataloaders import DATASETS
from lru.dataloaders.sets import pathfinder
from lru.flags import parse
from lru.layers import LAYERS, RecurrentLayer
from lru.origins import recipe_names
from lru.training.trackers import Trackers, read_jsonl


def run(*arguments):
    return main(list(map(str, arguments)))


@pytest.fixture
def flags(tmp_path):
    return [
        *("--dataset", "copy-classification", "--data_options"),
        *("n_train=24", "n_val=8", "n_test=8", "n_symbols=3", "pattern_length=2", "delay=3"),
        *("--n_layers", "1", "--d_model", "4", "--d_hidden", "4", "--batch_size", "8"),
        *("--max_steps", "3", "--runs_dir", tmp_path / "runs", "--dir_name", tmp_path / "cache"),
    ]


def test_lists_everything_that_can_be_named(capsys):
    assert run("--list") == 0
    printed = capsys.readouterr().out
    for name in [*LAYERS, *DATASETS, *recipe_names()]:
        assert f"  {name} " in printed


def test_helps_with_the_flags_of_what_is_chosen_or_with_all(flags, tmp_path, capsys):
    printed = {}
    for asked in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as stopped:
            run(*flags, "--model", "qrnn", asked)
        assert not stopped.value.code
        printed[asked] = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    for page in printed.values():
        assert re.search(r"--window \S*INT Width K of the convolution", page)
        assert re.search(r"--weight_decay \S*FLOAT Weight decay", page)
        assert re.search(r"pattern_length=10\W+symbols to recall", page)
    for name, owners in (
        ("r_min", "diag-rnn, indrnn, rnn, d-linoss, lru, rg-lru"),
        ("bptt", "language_modelling"),
    ):
        assert f"--{name}" not in printed["--help"]
        assert re.search(rf"--{name} .*\(of {owners}\)", printed["--help_all"])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("model", LAYERS)
def test_trains_evaluates_and_draws(model, flags, tmp_path, capsys):
    assert run("--model", model, "--name", "one", *flags) == 0
    printed = capsys.readouterr().out
    assert "test/accuracy" in printed
    folder = tmp_path / "runs" / "one"
    has_spectrum = LAYERS[model].eigenvalues is not RecurrentLayer.eigenvalues
    pictures = {"curves.png", "eigenvalues.png"} if has_spectrum else {"curves.png"}
    assert {path.name for path in (folder / "plots").iterdir()} == pictures
    last = read_jsonl(folder / "metrics.jsonl")[-1]
    assert last["step"] == 3
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["steps"], summary["best"][0]["val/loss"]) == (3, last["val/loss"])
    assert run("--name", "one", "--runs_dir", tmp_path / "runs", "--eval_only") == 0
    assert f"{last['test/accuracy']:.4f}" in capsys.readouterr().out


def test_reports_to_tensorboard_and_wandb_without_an_account(flags, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run("--model", "lru", "--name", "one", "--tensorboard", "--use_wandb", *flags) == 0
    folder = tmp_path / "runs" / "one"
    assert list((folder / "tensorboard").glob("events.*"))
    assert list((folder / "wandb").glob("offline-run-*"))
    identity = (folder / "wandb_id").read_text()
    assert run("--name", "one", "--runs_dir", tmp_path / "runs") == 0
    assert (folder / "wandb_id").read_text() == identity


def test_a_folder_may_have_any_name(flags, tmp_path, capsys):
    place = ["--runs_dir", tmp_path / "exp[1]", "--name", "a[1]*"]
    assert run("--model", "lru", *flags, *place) == 0
    last = read_jsonl(tmp_path / "exp[1]" / "a[1]*" / "metrics.jsonl")[-1]
    assert run("--model", "lru", *flags, *place) == 0
    capsys.readouterr()
    assert run(*place, "--eval_only") == 0
    assert f"{last['val/loss']:.4f}" in capsys.readouterr().out


def test_a_second_process_on_a_run_is_refused_and_may_evaluate(flags, tmp_path, capsys):
    place = ["--runs_dir", tmp_path / "runs", "--name", "one"]
    command = ["--model", "lru", *flags, *place, "--max_steps", "100000"]
    script = Path(__file__).parents[1] / "run_train.py"
    folder = tmp_path / "runs" / "one"
    words = [sys.executable, script, *command]
    first = subprocess.Popen(
        list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not any(p.name.isdigit() for p in folder.glob("checkpoints/best/*")):
            assert first.poll() is None
            time.sleep(0.05)
        for more in ([], ["--reset"]):
            assert run(*command, *more) == 2
            error = capsys.readouterr().err
            assert f"is being trained by process {first.pid} on " in error
            assert len(error.splitlines()) == 1
        assert run(*place, "--eval_only") == 0
        assert not (tmp_path / "runs" / "one.old1").exists()
    finally:
        first.kill()
        first.wait()
    assert run("--model", "lru", *flags, *place, "--reset") == 0


def test_trains_where_files_cannot_be_locked(flags, monkeypatch, capsys):
    def flock(file, operation):
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    assert run("--model", "lru", *flags) == 0
    assert "cannot be locked (no locks available)" in capsys.readouterr().err


@pytest.fixture
def long_flags(flags):
    """Flags of a run of 12 updates, 10 of them in the first epoch."""
    longer = ["n_train=80" if flag == "n_train=24" else flag for flag in flags]
    return [*longer, "--model", "lru", "--max_steps", "12", "--log_every", "1", "--plots", "False"]


@pytest.fixture
def press_ctrl_c(monkeypatch):
    """Ctrl-C or another signal, maybe several times, while a line of the log is written."""
    log = Trackers.log
    # A shell lets what it starts in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press(line, times=1, number=signal.SIGINT):
        lines = itertools.count(1)

        def pressed(trackers, step, metrics):
            log(trackers, step, metrics)
            if next(lines) == line:
                for _ in range(times):
                    signal.raise_signal(number)

        monkeypatch.setattr(Trackers, "log", pressed)

    yield press
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("line", "saved", "number", "times", "status", "said"),
    [
        (1, 2, signal.SIGINT, 1, 130, "interrupted"),
        (4, 5, signal.SIGTERM, 2, 75, "stopped by SIGTERM"),
        (11, 10, signal.SIGUSR2, 1, 75, "stopped by SIGUSR2"),
    ],
)
def test_signals_save_between_two_updates(
    long_flags, tmp_path, press_ctrl_c, line, saved, number, times, status, said, capsys
):
    assert run(*long_flags, "--name", "undisturbed") == 0
    press_ctrl_c(line, times, number)
    assert run(*long_flags, "--name", "stopped", "--reset") == status
    message = f"{said}; update {saved} is saved, and the same command without --reset resumes"
    assert message in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert run(*long_flags, "--name", "stopped") == 0
    assert f"{saved} of 12 done" in capsys.readouterr().out
    logs = [tmp_path / "runs" / name / "metrics.jsonl" for name in ("undisturbed", "stopped")]
    assert logs[0].read_bytes() == logs[1].read_bytes()


def test_a_signal_before_the_first_update_asks_to_be_started_again(long_flags, monkeypatch, capsys):
    def load(*args):
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr("lru.experiment.load_data", load)
    assert run(*long_flags) == 75
    assert "run_train.py: stopped by SIGHUP\n" in capsys.readouterr().err
    assert run(*long_flags, "--stop_signals", "SIGKILL") == 2
    assert "stop_signals must be of" in capsys.readouterr().err


class Finalised:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_is_not_lost_where_its_error_is(long_flags, monkeypatch, capsys):
    def load(*args):
        with contextlib.suppress(Exception):  # as tqdm does where it starts
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr("lru.experiment.load_data", load)
        assert run(*long_flags) == 75
    load = experiment.load_data
    monkeypatch.setattr("lru.experiment.load_data", lambda *args: (load(*args), Finalised())[0])
    assert run(*long_flags) == 75
    assert "stopped by SIGTERM; update 0 is saved" in capsys.readouterr().err


def test_a_second_ctrl_c_stops_at_once(long_flags, press_ctrl_c, capsys):
    press_ctrl_c(1, times=2)
    assert run(*long_flags) == 130
    assert "interrupted; nothing is saved yet\n" in capsys.readouterr().err
    press_ctrl_c(13, times=2)
    assert run(*long_flags) == 130
    message = "interrupted; update 10 is saved, and the same command resumes there\n"
    assert message in capsys.readouterr().err


def test_trains_in_a_thread(flags):
    with ThreadPoolExecutor() as threads:
        assert threads.submit(run, "--model", "lru", *flags).result() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--model", "lstm9"], r"unknown model 'lstm9'; known: .*lru"),
        (["--dataset", "mnist9"], r"unknown data set 'mnist9'; known: .*listops"),
        (["--recipe", "none"], r"unknown recipe 'none'; known: .*quickstart"),
        (["--model", "rnn", "--A_init", "x"], r"unknown initialiser 'x'; known: .*glorot"),
        (["--model", "rnn", "--A_init", "fixed"], r"width n = 4.*164.*calibrated_glorot"),
        (
            ["--model", "qrnn", "--r_min", "0.5"],
            r"r_min is an option of model .*'rg-lru', but this run has model 'qrnn'",
        ),
        (["--model", "lru", "--r_min", "2"], r"0 <= r_min < r_max <= 1, got r_min = 2"),
        (["--d_hidden", "0"], r"d_hidden must be at least 1, got 0"),
        (["--pooling", "mean"], r"pooling must be none for copy-classification"),
        (["--batch_size", "0"], r"batch_size must be at least 1, got 0"),
        (["--data_options", "delay"], r"data_options takes NAME=VALUE, got 'delay'"),
        (["--data_options", "dealy=3"], r"no option 'dealy'; known: .*delay"),
        (["--restore", "nowhere"], r"restore must be the name or the folder of a run"),
        (["--eval_only"], r"eval_only needs a run"),
        (["--resume"], r"resume: there is no checkpoint in .*copy-lru-seed1919-.*--name"),
        (
            ["--d_model", "1000000"],
            r"d_model 1000000, .* need 2\d{1,3}(,\d{3}){4} bytes .*there are",
        ),
    ],
)
def test_bad_input_is_one_clear_sentence(flags, change, message, tmp_path, capsys):
    assert run(*flags, *change) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("run_train.py: ")
    assert re.search(message, error)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("error", [MemoryError, jax.errors.JaxRuntimeError])
def test_memory_that_is_not_enough_is_one_clear_sentence(error, monkeypatch, capsys):
    def run(arguments):
        raise error("RESOURCE_EXHAUSTED: Out of memory allocating\n4 bytes.")

    monkeypatch.setattr("lru.commands.train.run", run)
    assert main([]) == 2
    message = capsys.readouterr().err
    assert re.search("there is not enough memory; choose less of --batch_size.*4 bytes", message)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("flag", ["runs_dir", "dir_name", "raw_dir"])
def test_a_folder_that_cannot_be_made_is_named_with_its_flag(flag, flags, tmp_path, capsys):
    (tmp_path / "file").touch()
    other = ["--dataset", "mnist-classification", *flags[9:]] if flag == "raw_dir" else flags
    assert run(*other, f"--{flag}", tmp_path / "file" / "in") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"run_train.py: {flag}")
    assert f"but {tmp_path}/file/in" in error
    assert len(error.splitlines()) == 1


def test_an_unknown_flag_is_refused_with_a_suggestion(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*flags, "--n_layerz", "3")
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert "--n_layers" in printed.out + printed.err


def test_another_configuration_names_the_differences_and_loses_nothing(flags, tmp_path, capsys):
    assert run("--model", "lru", "--name", "one", *flags) == 0
    before = (tmp_path / "runs" / "one" / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert (
        run("--model", "lru", "--name", "one", *flags, "--lr_base", "0.5", "--d_hidden", "5") == 2
    )
    error = capsys.readouterr().err
    assert "d_hidden: 4 there, 5 now" in error
    assert "lr_base: 0.001 there, 0.5 now" in error
    assert "--reset" in error
    assert (tmp_path / "runs" / "one" / "metrics.jsonl").read_bytes() == before
    assert run("--model", "lru", "--name", "one", *flags, "--d_hidden", "5", "--reset") == 0
    assert (tmp_path / "runs" / "one.old1" / "metrics.jsonl").read_bytes() == before


def test_a_damaged_archive_is_set_aside_and_named(few_files, tmp_path, monkeypatch, capsys):
    source = dataclasses.replace(DATASETS["imdb-classification"].sources[0], sha256=None)
    monkeypatch.setattr(DATASETS["imdb-classification"], "sources", (source,))
    (tmp_path / source.filename).write_bytes(b"no archive")
    folders = ["--raw_dir", tmp_path, "--dir_name", tmp_path / "c", "--runs_dir", tmp_path / "r"]
    assert run("--dataset", "imdb-classification", *folders) == 2
    error = capsys.readouterr().err
    assert re.search(r"run_train.py: .*aclImdb.* is truncated, damaged .* it was set aside", error)
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--help", "--help_all", "--list"])
def test_a_terminal_of_ascii_alone_gets_help_and_listings(flag, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    with contextlib.suppress(SystemExit):
        assert run(flag) == 0
    terminal.flush()
    assert len(terminal.buffer.getvalue()) > 1000


def test_missing_files_and_a_damaged_cache_are_one_clear_sentence(
    flags, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LRU_DATA_MIRROR", "http://127.0.0.1:9")
    arguments = ["--model", "lru", "--runs_dir", tmp_path, "--dir_name", tmp_path / "cache"]
    assert run("--dataset", "mnist-classification", "--raw_dir", tmp_path, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("run_train.py: ")
    assert "train-images-idx3-ubyte" in error
    assert run(*flags, "--model", "lru") == 0
    (card,) = (tmp_path / "cache").glob("copy-*/card.json")
    card.write_text("{}")
    capsys.readouterr()
    assert run(*flags, "--model", "lru") == 2
    error = capsys.readouterr().err
    assert "card.json cannot be read" in error
    assert len(error.splitlines()) == 1


def test_runs_with_other_values_have_other_names(flags, tmp_path):
    assert run(*flags, "--model", "lru") == 0
    assert run(*flags, "--model", "lru", "--lr_base", "0.01") == 0
    assert run(*flags, "--model", "lru", "--plots", "False") == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


# Options that make a data set small, where it has them.
FEW = {
    "n_train": 8,
    "n_val": 4,
    "n_test": 4,
    "source": "generated",
    "min_length": 3,
    "max_length": 30,
    "min_frequency": 1,
    "path": "series",
}

# Groups of those data sets that take no batch of 8.
GROUPS = {"simple-quotes": 6, "mnist-pca": 10, "mnist-tsne": 10, "mnist-umap": 10}


@pytest.fixture
def small(tmp_path, few_files, monkeypatch):
    """Flags of two updates of a model on a data set."""
    # Pictures are else drawn by a thousand.
    monkeypatch.setattr(pathfinder, "ROWS_AT_ONCE", 32)

    def flags(model, dataset):
        known = {option.name for option in dataclasses.fields(DATASETS[dataset])}
        options = [f"{name}={value}" for name, value in FEW.items() if name in known]
        choice = ["--model", model, "--dataset", dataset, "--data_options", *options]
        folders = ["--runs_dir", tmp_path, "--dir_name", tmp_path / "c", "--raw_dir", few_files]
        sizes = ["--n_layers", "1", "--d_model", "4", "--d_hidden", "4"]
        sizes += ["--batch_size", str(GROUPS.get(dataset, 8))]
        sizes += ["--bptt", "8", "--eval_batch_size", "2"]
        short = ["--max_steps", "2", "--n_buckets", "1", "--plots", "False"]
        return [*choice, *folders, *sizes, *short]

    return flags


def takes_a_batch(arguments):
    """Trace the loss of a command's task on the first batch of every split; the names of these."""
    config = experiment.resolved(parse([*map(str, arguments)])[1])
    data = experiment.load_data(config)
    task = experiment.make_task(config, data)
    model = nnx.eval_shape(lambda: task.build_model(nnx.Rngs(0)))
    sources = task.sources(data, config.data, seed=0, on_device=None)

    # Evaluations of equal batches are traced once.
    @functools.partial(jax.jit, static_argnames=("rows", "train"))
    def loss(model, batch, rows, train):
        carry = task.initial_carry(model, rows)
        return task.loss(model, batch, carry, jax.random.key(0), train=train)

    for name, source in sources.items():
        batch = next(source.epoch()).batch
        of_split = functools.partial(loss, rows=source.rows, train=name == "train")
        outcome = jax.eval_shape(of_split, model, batch)
        assert outcome.loss.total.shape == ()
        assert outcome.metrics.keys() == task.metrics.keys()
    return set(sources)


# One of each kind is trained by the tests below; of the others what is their own is proved.
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_data_set_has_batches_that_its_task_takes(dataset, small):
    assert {"train", "val"} <= takes_a_batch(small("lru", dataset))


@pytest.mark.parametrize("dataset", ["aan-classification", "fashion-mnist-classification"])
def test_trains_on_pairs_and_on_bytes(dataset, small):
    assert run(*small("lru", dataset)) == 0


# Every model is trained by `test_trains_evaluates_and_draws`, on labels a step.
@pytest.mark.parametrize("model", [model for model in LAYERS if model != "lru"])
@pytest.mark.parametrize("dataset", ["listops-classification", "shakespeare-lm"])
def test_every_model_takes_padded_rows_and_text(model, dataset, small):
    assert {"train", "val"} <= takes_a_batch(small(model, dataset))


# Those whose state is more than one array.
@pytest.mark.parametrize(
    ("model", "dataset"), [("lstm", "listops-classification"), ("qrnn", "shakespeare-lm")]
)
def test_trains_on_padded_rows_and_on_text(model, dataset, small):
    assert run(*small(model, dataset)) == 0


def test_selecting_on_the_test_split_is_named(tmp_path, few_files, capsys):
    folders = ["--runs_dir", tmp_path, "--dir_name", tmp_path / "c", "--raw_dir", few_files]
    sizes = ["--n_layers", "1", "--d_model", "4", "--d_hidden", "4", "--batch_size", "8"]
    choice = ["--model", "lru", "--dataset", "mnist-classification", "--name", "one"]
    short = ["--max_steps", "2", "--plots", "False"]
    assert run(*choice, *folders, *sizes, *short, "--protocol", "lra") == 0
    printed = capsys.readouterr().out
    assert "train 60, val 8, test 8 rows. " in printed
    assert re.search(r"best validation +after update 2 on the test split itself", printed)
    assert "protocol: lra" in (tmp_path / "one" / "config.yaml").read_text()


def test_a_corrupt_line_is_named_and_nothing_is_cached(flags, tmp_path, capsys):
    folder = tmp_path / "raw" / "listops-1000"
    folder.mkdir(parents=True)
    for split in ("train", "val", "test"):
        (folder / f"basic_{split}.tsv").write_text(
            "Source\tTarget\r\n[MAX 2 3 ]\t3\r\n[MIN 2 oops ]\t2\r\n"
        )
    arguments = ["--dataset", "listops-classification", "--raw_dir", tmp_path / "raw"]
    assert run(*flags[9:], "--model", "lru", *arguments) == 2
    error = capsys.readouterr().err
    assert "line 3" in error
    assert "oops" in error
    cache = tmp_path / "cache"
    assert not cache.exists() or not [path for path in cache.iterdir() if path.name[0] != "."]


def test_the_published_command_runs_as_written(tmp_path, monkeypatch):
    """Three updates of the ancestor's ListOps command, on a small file in the official layout."""
    folder = tmp_path / "raw_datasets" / "listops-1000"
    folder.mkdir(parents=True)
    for split in ("train", "val", "test"):
        lines = [f"[MAX {i % 10} [SM {i % 7} 4 ] ]\t{max(i % 10, i % 7 + 4)}" for i in range(6)]
        lines = [line for line in lines if line.split("\t")[1] in "0123456789"]
        (folder / f"basic_{split}.tsv").write_text("\r\n".join(["Source\tTarget", *lines]))
    command = (
        "--model diag-rnn --n_layers 6 --dataset listops-classification --warmup_end 5 "
        "--d_model 256 --d_hidden 192 --epochs 50 --batch_size 32 --A_init fixed "
        "--lr_factor 0.05 --p_dropout 0 --max_steps 3"
    )
    monkeypatch.chdir(tmp_path)
    assert run(*command.split()) == 0
    (log,) = (tmp_path / "runs").glob("listops-diag-rnn-seed1919-*/metrics.jsonl")
    assert read_jsonl(log)[-1]["step"] == 3


# The three commands of the README for arXiv 2505.19827, without `python run_train.py`.
PUBLISHED = {
    "cifar-classification": "--model diag-rnn --n_layers 6 --dataset cifar-classification "
    "--warmup 18 --epochs 180 --batch_size 50 --d_model 512 --d_hidden 384 --lr_factor 0.025 "
    "--A_init fixed",
    "listops-classification": "--model diag-rnn --n_layers 6 --dataset listops-classification "
    "--warmup_end 5 --d_model 256 --d_hidden 192 --epochs 50 --batch_size 32 --A_init fixed "
    "--lr_factor 0.05 --p_dropout 0",
    "imdb-classification": "--model diag-rnn --n_layers 6 --dataset imdb-classification "
    "--warmup_end 7 --d_model 192 --d_hidden 256  --batch_size 32 --A_init fixed --epochs 65 "
    "--lr_factor 0.025",
}


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_the_published_commands_take_batches_of_the_real_data(dataset, real_data, tmp_path):
    """Their networks on the official files; such a network is trained by the test above."""
    folders = ["--raw_dir", real_data, "--dir_name", tmp_path]
    assert takes_a_batch([*PUBLISHED[dataset].split(), *folders]) == {"train", "val", "test"}


def test_mistakes_with_data_are_said_as_those_of_other_verbs(capsys):
    assert verbs(["data", "prepare", "mnits"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lru data: unknown data set 'mnits'; known: ")
    assert len(error.splitlines()) == 1


def test_output_that_nobody_reads_on_is_no_error():
    listing = f"{sys.executable} -m lru data list | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", listing], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_a_process_ends_with_its_status_whatever_c_libraries_do_then():
    program = (
        "import atexit, ctypes, lru.commands as c, threading, time; "
        "process = ctypes.CDLL(None); process.__cxa_atexit(process.abort, None, None); "
        "threading.Thread(target=lambda: (time.sleep(0.1), print('before'))).start(); "
    )

    def ended(end):
        return subprocess.run([sys.executable, "-c", program + end], capture_output=True, text=True)

    assert ended("raise SystemExit(75)").returncode == -signal.SIGABRT
    done = ended("c.run_process(lambda: atexit.register(print, 'last') and 75)")
    assert (done.returncode, done.stdout) == (75, "before\nlast\n")
    done = ended("c.run_process(lambda: 1 / 0)")
    assert (done.returncode, done.stdout) == (-signal.SIGABRT, "before\n")
    assert "ZeroDivisionError" in done.stderr


def test_compares_runs_side_by_side(flags, tmp_path, capsys):
    for name, rate in (("slow", "0.001"), ("fast", "0.01")):
        assert run("--model", "lru", "--name", name, "--lr_base", rate, *flags) == 0
    folders = [str(tmp_path / "runs" / name) for name in ("slow", "fast")]
    capsys.readouterr()
    assert verbs(["compare", *folders]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["slow", "fast"]
    assert ["lr_base", "0.001", "0.01"] in rows
    last = [read_jsonl(Path(folder) / "metrics.jsonl")[-1]["test/loss"] for folder in folders]
    assert ["test/loss", *(f"{value:.4f}" for value in last)] in rows
    assert not any("d_model" in row for row in rows)
    assert verbs(["compare", "nowhere"]) == 2
    assert "there is no run 'nowhere'" in capsys.readouterr().err
