"""Run folders of the first form of the package: still evaluated, exported and resumed.

`fixtures/first_form.tar.xz` has two runs of commit 589da48, ended in the middle: a classifier with
batch norm, averaging and a plateau, and a language model with chunks of variable length; beside
each the log of the same run left alone (`expected.jsonl`), and an export of the classifier.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from lru.commands import main, run_train
from lru.export.artifact import load
from lru.training.first_form import as_second_form
from lru.training.trackers import read_jsonl

ARCHIVE = Path(__file__).parent / "fixtures" / "first_form.tar.xz"
PLAY = "to be or not to be\nthat is the question\n" * 60


@pytest.fixture
def folders(tmp_path):
    """Flags of the folders, with the recorded runs in them."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "raw" / "tinyshakespeare").mkdir(parents=True)
    (tmp_path / "raw" / "tinyshakespeare" / "input.txt").write_text(PLAY)
    return [
        *("--runs_dir", str(tmp_path / "runs"), "--dir_name", str(tmp_path / "cache")),
        *("--raw_dir", str(tmp_path / "raw"), "--plots", "False"),
    ]


@pytest.mark.parametrize("name", ["classifier", "text"])
def test_a_recorded_run_is_resumed_to_what_it_would_have_been(name, folders, tmp_path):
    run = tmp_path / "runs" / name
    assert run_train(["--name", name, *folders]) == 0
    expected, found = (read_jsonl(run / f"{log}.jsonl") for log in ("expected", "metrics"))
    assert [list(line) for line in found] == [list(line) for line in expected]
    for line, recorded in zip(found, expected, strict=True):
        # Another machine may sum in another order.
        losses = [key for key in line if "accuracy" not in key]
        np.testing.assert_allclose(
            [line[key] for key in losses], [recorded[key] for key in losses], rtol=1e-3
        )


def test_a_recorded_run_is_evaluated_and_exported(folders, tmp_path, monkeypatch, capsys):
    run = tmp_path / "runs" / "classifier"
    before = next(line for line in read_jsonl(run / "metrics.jsonl") if "val/loss" in line)
    assert run_train(["--name", "classifier", *folders, "--eval_only"]) == 0
    assert f"{before['val/loss']:.4f}" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--out", str(tmp_path / "again")]) == 0
    inputs, lengths = np.ones((2, 7), np.int32), np.array([7, 5], np.int32)
    old, new = (
        load(folder).whole(inputs, lengths) for folder in (run / "export", tmp_path / "again")
    )
    np.testing.assert_allclose(old, new, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_of_a_later_form_is_refused():
    with pytest.raises(
        ValueError, match="the checkpoint has format 3, but only 1 to 2 can be read"
    ):
        as_second_form({}, {"format": 3})
