"""A report on runs says what is on record, and holds all that it shows."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from lru.analysis.comparisons import plot_by_option, plot_panels
from lru.commands import main, run_train
from lru.config import Config
from lru.models import Classifier
from lru.training.trackers import read_jsonl

SIZES = {"n_layers": 2, "d_model": 8, "d_hidden": 8, "p_dropout": 0.0}
DATA = ["n_train=40", "n_val=10", "n_test=10", "n_symbols=4", "pattern_length=3", "delay=4"]


@pytest.fixture
def record(tmp_path):
    """Writes a run as if it had been trained: its configuration and its log."""

    def write(name, lines, **values):
        defaults = {"dataset": "copy-classification", "dir_name": str(tmp_path / "no"), **SIZES}
        folder = tmp_path / name
        folder.mkdir(parents=True)
        Config.from_flat({**defaults, **values}).save(folder / "config.yaml")
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        return str(folder)

    return write


@pytest.fixture
def report(tmp_path, capsys):
    """Runs the verb; the report in Markdown, or the message if it was refused."""

    def run(*words):
        status = main(["report", *map(str, words), "--out", str(tmp_path / "out")])
        printed = capsys.readouterr()
        if status:
            assert not (tmp_path / "out").exists()
            return printed.err
        assert str(tmp_path / "out") in printed.out
        return (tmp_path / "out" / "report.md").read_text()

    return run


def accuracies(*values, split="val"):
    """A log with training and an evaluation every ten updates."""
    return [
        line
        for k, value in enumerate(values, 1)
        for line in (
            {"step": 10 * k, "train/loss": 1 / k, "lr": 0.1},
            {"step": 10 * k, f"{split}/accuracy": value, "test/accuracy": value / 2},
        )
    ]


def of_lanes(*logs):
    """The log of lanes, each line with all of them."""
    joined = []
    for lines in zip(*logs, strict=True):
        found = {"step": lines[0]["step"]}
        for k, line in enumerate(lines):
            own = {name: value for name, value in line.items() if name != "step"}
            found |= own | {f"lane{k}/{name}": value for name, value in own.items()}
            found |= {f"{name}/sd": 0.0 for name in own}
        joined.append(found)
    return joined


def rows_of(text, heading="## Results"):
    """The cells of the first table under a heading, row by row."""
    table = text.split(f"{heading}\n")[1].strip().split("\n\n")[0].splitlines()
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]
    return [cells[0], *cells[2:]]


def test_trainings_that_differ_in_seeds_alone_are_one_row(record, report):
    lanes = of_lanes(accuracies(0.7, 0.2), accuracies(0.1, 0.8))
    runs = [
        record("lanes", lanes, n_seeds=2, data_seed=3),
        record("alone", accuracies(0.3, 0.9, 0.5), jax_seed=7, use_wandb=True),
    ]
    text = report(*runs)
    assert rows_of(text) == [
        ["n", "updates", "val/accuracy", "test/accuracy", "parameters"],
        ["3", "20 to 30", "0.8000 ± 0.1000", "0.4000 ± 0.0500", "-"],
    ]
    assert "the highest `val/accuracy`" in text
    assert "model `lru`" in text
    # Each lane counts at its own best.
    trainings = rows_of(text, "## Trainings")
    assert [row[1:6] for row in trainings[1:]] == [
        ["lanes, lane 0", "1919", "3", "20", "10"],
        ["lanes, lane 1", "1920", "3", "20", "20"],
        ["alone", "7", "7", "30", "20"],
    ]


def test_analyses_are_told_apart_by_how_their_subjects_were_trained(
    record, report, tmp_path, capsys
):
    log = [{"step": 10, "train/loss": 1.0}, {"step": 10, "val/exact_match": 0.5}]
    values = {"dataset": "repeat", "body": "cells", "model": "gru"}
    analyses = []
    for name, own in (("a", {}), ("b", {"lr_base": 0.1}), ("c", {"jax_seed": 3})):
        record(name, log, **values, **own)
        analyses.append(record(f"{name}/analyses/probe", log, **values, task="onion-probe"))
    rows = rows_of(report(*analyses))
    assert [row[:2] for row in rows] == [["run.lr_base", "n"], ["0.001", "2"], ["0.1", "1"]]
    # The probe has an option of this name, too.
    record("d", log, **values, no_input=True)
    probes = [
        record(f"{name}/analyses/gru", log, **values, task="gru-probe") for name in ("a", "d")
    ]
    rows = rows_of(report(*probes))
    assert [row[:2] for row in rows] == [["run.no_input", "n"], ["False", "1"], ["True", "1"]]
    shutil.move(tmp_path / "a" / "analyses", tmp_path / "gone" / "analyses")
    assert main(["report", str(tmp_path / "gone/analyses/gru")]) == 2
    gone = f"the run that {tmp_path}/gone/analyses/gru looks at is gone: {tmp_path}/gone has no "
    assert gone in capsys.readouterr().err


def test_the_last_evaluation_counts_if_asked_for(record, report):
    text = report(record("one", accuracies(0.9, 0.5)), "--last", "--metric", "test/accuracy")
    assert rows_of(text)[1] == ["1", "20", "0.2500", "-"]
    assert "The evaluation that counts is the last one" in text


def test_lanes_with_values_of_their_own_are_groups_against_which_results_are_drawn(record, report):
    logs = [accuracies(value) for value in (0.1, 0.3, 0.5, 0.7)]
    run = record("grid", of_lanes(*logs), n_seeds=2, lanes=("lr_base=0.01,0.1",))
    text = report(run)
    assert [row[:4] for row in rows_of(text)] == [
        ["lr_base", "n", "updates", "val/accuracy"],
        ["0.01", "2", "10", "0.2000 ± 0.1414"],
        ["0.1", "2", "10", "0.6000 ± 0.1414"],
    ]
    assert "### `val/accuracy` by `lr_base`" in text


def test_widths_are_an_axis_and_models_its_lines(record, report, monkeypatch):
    drawn = {}

    def plot(lines, option, quantity, path):
        drawn[option] = lines
        plot_by_option(lines, option, quantity, path)

    monkeypatch.setattr("lru.reports.content.plot_by_option", plot)
    runs = [
        record(f"{model}-{width}", accuracies(value), model=model, d_hidden=width)
        for model, width, value in (
            *(("gru", 8, 0.1), ("gru", 16, 0.2)),
            *(("lru", 8, 0.3), ("lru", 16, 0.4)),
        )
    ]
    assert [row[:2] for row in rows_of(report(*runs))[1:]] == [
        *(["gru", "8"], ["gru", "16"]),
        *(["lru", "8"], ["lru", "16"]),
    ]
    assert drawn == {"d_hidden": {"gru": {8: [0.1], 16: [0.2]}, "lru": {8: [0.3], 16: [0.4]}}}


def test_groups_of_other_names_alone_are_bars(record, report):
    runs = [record(model, accuracies(0.5), model=model) for model in ("gru", "lru")]
    text = report(*runs)
    assert "### `val/accuracy` of each group" in text
    assert [row[0] for row in rows_of(text)] == ["model", "gru", "lru"]


def test_options_that_speak_for_themselves_are_the_first_columns(record, report):
    values = ({"optimizer": "adamw", "batch_size": 8}, {"optimizer": "lbfgs", "batch_size": 4})
    text = report(*(record(f"{k}", accuracies(0.5), **each) for k, each in enumerate(values)))
    assert rows_of(text)[0][:2] == ["optimizer", "batch_size"]


def test_lanes_side_by_side_are_means_over_their_best(record, capsys):
    lanes = of_lanes(accuracies(0.7, 0.2), accuracies(0.1, 0.8))
    runs = [record("lanes", lanes, n_seeds=2), record("alone", accuracies(0.9))]
    assert main(["compare", *runs]) == 0
    rows = [re.split("  +", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert ["step", "10 to 20", "10"] in rows
    assert ["val/accuracy", "0.7500 ± 0.0707", "0.9000"] in rows
    assert not any(name.startswith("lane0") for name, *_ in rows)


def test_other_tasks_have_a_dash_and_many_options_a_table(record, report):
    words = [{"step": 5, "val/nll": 2.0, "val/tokens": 1e4}, {"step": 9, "val/nll": 1e-5}]
    runs = [
        record("words", words, dataset="ptb-lm", model="qrnn", d_model=4, lr_base=0.1),
        record("copies", accuracies(0.5)),
    ]
    text = report(*runs)
    header, *rows = rows_of(text)
    assert header == [
        *("model", "n", "updates", "val/nll", "val/accuracy", "test/accuracy", "parameters")
    ]
    assert rows[0] == ["qrnn", "1", "9", "1e-05", "-", "-", "-"]
    assert rows[1] == ["lru", "1", "10", "-", "0.5000", "0.2500", "-"]
    further = rows_of(text, "Further options in which the groups differ:")
    assert further[0] == ["", "qrnn", "lru"]
    assert ["lr_base", "0.1", "0.001"] in further
    # Neither has another to stand beside.
    assert "###" not in text.split("## Learning curves")[0]
    # It comes with the model.
    assert "r_min" not in text


def test_two_options_of_words_make_a_grid_with_the_curves_that_were_found(
    record, report, tmp_path, monkeypatch
):
    drawn = []

    def draw(panels, *labels):
        drawn.append((panels, *labels))
        plot_panels(panels, *labels)

    monkeypatch.setattr("lru.reports.content.plot_panels", draw)
    runs = [
        record(f"{model}-{data}", accuracies(share), model=model, dataset=data)
        for model, data, share in (
            ("gru", "parity", 0.5),
            ("gru", "even-pairs", 0.25),
            ("lru", "parity", 0.125),
        )
    ]
    for run, end in zip(runs[:2], (0.75, 0.5), strict=True):
        (tmp_path / run / "curves").mkdir()
        (tmp_path / run / "curves" / "by_length.csv").write_text(
            f"curve,length,accuracy\na,40,1.0\na,44,{end}\n"
        )
    text = report(*runs)
    assert rows_of(text, "### `val/accuracy` by `model` and `dataset`") == [
        ["", "parity", "even-pairs"],
        ["gru", "0.5000", "0.2500"],
        ["lru", "0.1250", "-"],
    ]
    assert "![val/accuracy](results-1.png)" in text
    ((panels, x_label, y_label, _),) = drawn
    assert (x_label, y_label) == ("length", "accuracy")
    points = [{"step": 40.0, "accuracy": 1.0}, {"step": 44.0, "accuracy": 0.75}]
    assert panels["parity"] == {"gru": [points], "lru": []}
    assert [len(panels["even-pairs"][name]) for name in ("gru", "lru")] == [1, 0]


def test_trainings_without_results_or_seeds_of_their_own_are_named(record, report, tmp_path):
    new = record("new", [{"step": 3, "train/loss": 1.0}], jax_seed=5)
    one, same = (record(name, accuracies(0.5)) for name in ("one", "same"))
    text = report(one, new, same, one)
    assert "Left out: new has not been evaluated yet." in text
    assert "Left out: same has the options and the seeds of one." in text
    assert rows_of(text)[1][:2] == ["1", "10"]
    shutil.rmtree(tmp_path / "out")
    assert report(new) == (f"lru report: runs must have been evaluated at least once, got {new}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "val/acuracy"], "unknown metric 'val/acuracy'; known: val/accuracy, test/"),
        (["--by", "model"], "by must be a numeric option in which the groups differ, of which "),
        (["--plugins", "none.py"], "plugins: there is no file none.py"),
    ],
)
def test_bad_arguments_are_one_clear_sentence(record, report, words, message):
    runs = [record(model, accuracies(0.5), model=model) for model in ("gru", "lru")]
    error = report(*runs, *words)
    assert error.startswith(f"lru report: {message}")
    assert len(error.splitlines()) == 1


def test_a_folder_of_something_else_stays_as_it_is(record, tmp_path, capsys):
    run = record("one", accuracies(0.5))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.md").write_text("mine")
    assert main(["report", run, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "out must be a new folder or that of an earlier report, but " in error
    assert error.endswith("out holds thesis.md\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.md"]


def test_without_a_folder_the_runs_name_it(record, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runs = [record(name, accuracies(0.5), jax_seed=k) for k, name in enumerate("ab")]
    assert main(["report", *runs]) == 0
    assert "reports/a-b" in capsys.readouterr().out
    assert (tmp_path / "reports" / "a-b" / "report.html").is_file()


class Page(HTMLParser):
    """What a page shows and what it refers to.

    Attributes:
        tags: of all elements.
        links: values of attributes that may name something outside.
        text: without tags.
    """

    def __init__(self, content):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        outside = ("src", "href", "srcset", "data", "action", "poster")
        self.links += [value for name, value in attrs if name in outside]

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_all_that_it_shows(record, report, tmp_path):
    runs = [
        record("<script>a|b`c", accuracies(0.5, 0.7), model="gru"),
        record("other", accuracies(0.6), model="lru"),
    ]
    report(*runs)
    content = (tmp_path / "out" / "report.html").read_text()
    page = Page(content)
    pictures = {path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    prefix = "data:image/png;base64,"
    assert all(link.startswith(prefix) for link in page.links)
    embedded = {base64.b64decode(link.removeprefix(prefix)) for link in page.links}
    assert embedded == pictures
    assert len(pictures) == 2
    assert not {"script", "link", "iframe", "object"} & {*page.tags}
    assert not re.search(r"url\(|@import|https?:", content)
    assert "<script>a|b`c" in page.text
    assert page.tags.count("table") == 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of two lanes of a small network, and that of its data."""
    folder = tmp_path_factory.mktemp("report")
    flags = [
        *("--dataset", "copy-classification", "--data_options", *DATA, "--model", "gru"),
        *("--body", "cells", "--n_layers", "1", "--d_model", "8", "--p_dropout", "0"),
        *("--batch_size", "10", "--epochs", "2", "--n_seeds", "2", "--plots", "False"),
        *("--runs_dir", folder, "--dir_name", folder / "cache", "--name", "trained"),
    ]
    assert run_train([str(word) for word in flags]) == 0
    return folder / "trained", folder / "cache"


def test_a_trained_run_is_opened_and_the_same_runs_give_the_same_bytes(trained, report, tmp_path):
    run, _ = trained
    text = report(run)
    out = tmp_path / "out"
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {*first} == {"report.md", "report.html", "curves.png", "inside-1-1.png"}
    header, row = rows_of(text)
    evaluated = [line for line in read_jsonl(run / "metrics.jsonl") if "val/accuracy" in line]
    best = [max(line[f"lane{k}/val/accuracy"] for line in evaluated) for k in range(2)]
    mean, deviation = sum(best) / 2, abs(best[0] - best[1]) / 2**0.5
    assert row[header.index("val/accuracy")] == f"{mean:.4f} ± {deviation:.4f}"
    # Embedding, GRU with two biases, read-out.
    assert row[header.index("parameters")] == f"{7 * 8 + 2 * 8 * 24 + 2 * 24 + 9 * 4:,}"
    assert "on the first example of the split val" in text
    report(run)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_without_its_data_a_run_keeps_tables_and_curves(trained, report, tmp_path):
    run, cache = trained
    hidden = cache.rename(cache.with_name("elsewhere"))
    try:
        text = report(run)
    finally:
        hidden.rename(cache)
    assert "## Learning curves" in text
    assert rows_of(text)[1][:2] == ["2", "8"]
    assert re.search(r"Left out: gru: .*cache.*\.", text)
    assert not list((tmp_path / "out").glob("inside*"))
    assert not cache.with_name("elsewhere").exists()


@pytest.mark.parametrize(
    ("observe", "why"),
    [(None, "its Classifier has no method observe"), ("raises", "the body of its Classifier")],
)
def test_a_model_that_cannot_be_observed_is_left_out_with_a_sentence(
    trained, report, monkeypatch, observe, why
):
    if observe is None:
        monkeypatch.delattr(Classifier, "observe")
    else:
        monkeypatch.delattr("lru.layers.stack.CellStack.observe")
    assert f"Left out: gru: {why}" in report(trained[0])
