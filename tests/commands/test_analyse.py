"""`lru analyse`: a trained run is opened, intervened on and probed; what does not fit is said."""

import json
import shutil

import pytest

import lru
from lru.commands import main
from lru.experiment import load_models
from lru.flags import parse
from lru.training.runs import Run
from lru.training.trackers import read_jsonl


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where runs and data go."""
    return tmp_path_factory.mktemp("repeat")


@pytest.fixture(scope="module")
def repeats(folder):
    """A run of the small recipe."""
    words = ["--recipe", "repeat-smoke", "--runs_dir", f"{folder}/runs", "--name", "small"]
    words += ["--dir_name", f"{folder}/cache_dir", "--plots", "False", "--steps_per_call", "250"]
    assert main(["train", *words]) == 0
    return folder / "runs" / "small"


def last(run):
    """The last evaluation of a run."""
    return read_jsonl(Run(run).metrics_file)[-1]


def analysed(run, *words, steps=1000):
    """The last evaluation of an analysis."""
    rest = ["--steps", str(steps), "--eval_every", str(steps), "--lr_base", "0.005"]
    # All batches, those of evaluation too, are full, and so of one shape.
    rest += ["--batch_size", "250", "--steps_per_call", "250"]
    assert main(["analyse", str(run), "--method", *words, *rest, "--plots", "False"]) == 0
    newest = max((run / "analyses").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return last(newest)


def test_a_gru_that_repeats_has_an_onion_code(repeats):
    assert last(repeats)["val/exact_match"] > 0.95
    onion = analysed(repeats, "onion-intervention")
    flat = analysed(repeats, "onion-intervention", "--no_scale")
    assert onion["val/exact_match"] > 0.8
    assert flat["val/exact_match"] < onion["val/exact_match"] - 0.2
    assert analysed(repeats, "onion-probe")["val/exact_match"] > 0.95
    assert analysed(repeats, "linear-probe")["val/exact_match"] < 0.7


def test_analyses_of_lanes_look_at_the_models_of_lanes(folder, repeats):
    words = ["--recipe", "repeat-smoke", "--runs_dir", f"{folder}/runs", "--name", "lanes"]
    words += ["--dir_name", f"{folder}/cache_dir", "--plots", "False"]
    few = ["--max_steps", "2", "--eval_every", "2", "--n_seeds", "2"]
    assert main(["train", *words, *few]) == 0
    run = folder / "runs" / "lanes"
    models, summary = lru.analyse(run, "linear-intervention", max_steps=3, eval_every=3)
    assert summary.steps == 3
    for model, subject in zip(models, load_models(run).models, strict=True):
        # What is looked at is as it was trained.
        assert (model.subject.embedding[...] == subject.embedding[...]).all()
    assert (models[0].subject.embedding[...] != models[1].subject.embedding[...]).any()


def test_an_analysis_goes_on_where_it_was_stopped(repeats, tmp_path):
    undisturbed, _ = lru.analyse(repeats, "onion-probe", max_steps=4, eval_every=2, name="whole")
    lru.analyse(repeats, "onion-probe", max_steps=4, eval_every=2, name="cut", stop_at_loss=9.0)
    lines = [read_jsonl(repeats / "analyses" / n / "metrics.jsonl") for n in ("whole", "cut")]
    assert lines[1] == lines[0][: len(lines[1])]
    assert undisturbed
    # By its name alone it is found again, with its settings.
    words = ["--method", "onion-probe", "--name", "whole", "--plots", "False"]
    assert main(["analyse", str(repeats), *words]) == 0
    assert read_jsonl(repeats / "analyses" / "whole" / "metrics.jsonl") == lines[0]
    # It looks at the run in whose folder it lies, wherever that is.
    moved = tmp_path / "moved"
    shutil.copytree(repeats, moved, ignore=shutil.ignore_patterns("cut"))
    config = moved / "analyses" / "whole" / "config.yaml"
    config.write_text(config.read_text().replace(str(repeats), str(tmp_path / "gone")))
    assert lru.load_model(moved / "analyses" / "whole").update in (2, 4)
    assert str(repeats) not in config.read_text()


def refused(capsys, *words):
    """The sentence with which a command is refused."""
    assert main(list(words)) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    return said.removeprefix(f"lru {words[0]}: ")


def test_what_does_not_fit_is_refused_in_a_sentence(capsys, folder, repeats, tmp_path):
    run = str(repeats)
    assert refused(capsys, "analyse", run, "--method", "unionprobe").startswith(
        "unknown method 'unionprobe'; known: linear-intervention, onion-intervention, "
    )
    assert refused(capsys, "analyse", f"{folder}/none", "--method", "onion-probe").startswith(
        f"there is no run '{folder}/none'"
    )
    message = refused(capsys, "analyse", run, "--method", "linear-intervention", "--ngram", "5")
    assert message == "ngram must be at most 4, the length of the sequences, got 5"
    message = refused(
        capsys, "analyse", run, "--method", "linear-intervention", "--batch_size", "33"
    )
    assert message.startswith("batch_size must be even")
    for name, other, own in (
        ("model", "lstm", "gru"),
        ("d_model", 16, 32),
        ("dataset", "copy-classification", "repeat"),
        ("task", "repeat", "onion-probe"),
        ("runs_dir", str(tmp_path), f"{run}/analyses"),
    ):
        message = f"{name} must be {own!r}, as an analysis looks at the model and the data of its "
        message += f"run and lies in its folder, got {other!r}"
        words = [run, "--method", "onion-probe", f"--{name}", str(other)]
        assert refused(capsys, "analyse", *words) == message
    with pytest.raises(ValueError, match="d_hidden must be 64, as an analysis looks at"):
        lru.analyse(run, "onion-probe", d_hidden=8)
    words = ["--task", "onion-probe", "--dataset", "repeat", "--model", "gru"]
    where = ["--runs_dir", f"{tmp_path}/runs", "--dir_name", f"{folder}/cache_dir"]
    small = ["--data_options", "n_symbols=10", "max_length=4", "n_train=8000"]
    small += ["n_val=500", "n_more=200"]
    assert refused(capsys, "train", *words, *where, *small) == (
        "task onion-probe looks at a trained model: lru analyse RUN --method onion-probe opens it"
    )


def test_networks_and_methods_are_named(capsys):
    with pytest.raises(SystemExit):
        main(["analyse", "--help"])
    said = capsys.readouterr().out
    assert "  onion-intervention   One wrong symbol put right" in said
    assert "  --ngram: Number of adjacent places that share a variable.\n" in said
    with pytest.raises(ValueError, match="task must be repeat for model 'vector-sum', got 'class"):
        parse(["--model", "vector-sum", "--task", "classification"])
    assert json.dumps(parse(["--model", "vector-sum"])[1].flat()["task"]) == '"repeat"'
