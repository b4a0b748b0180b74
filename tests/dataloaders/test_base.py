import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from lru.dataloaders import base
from lru.dataloaders.base import DATASETS, Dataset, Description, dataset_from_options
from lru.dataloaders.sets.copying import Copy
from lru.dataloaders.store import cache
from lru.dataloaders.store.arrays import given
from lru.dataloaders.store.cache import CacheError
from lru.dataloaders.store.card import CARD_NAME, Card
from lru.plugins import load_plugins

ROOT = Path(__file__).parents[2]
SMALL = Copy(n_train=30, n_val=5, n_test=5, delay=4, pattern_length=3)


@dataclass(frozen=True)
class FromFile(Dataset):
    """Reads one file of numbers."""

    name: ClassVar[str] = "from-file"

    offset: float = 0.0
    """added to all"""

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        path = raw_dir / "numbers.txt"
        return (path,) if path.exists() else ()

    def build(self, raw_dir: Path, folder: Path) -> Description:
        numbers = np.loadtxt(raw_dir / "numbers.txt", dtype=np.float32).reshape(-1, 2, 1)
        for split in self.split_names:
            labels = np.zeros(len(numbers), np.int32)
            cache.write_dense(folder, split, numbers + np.float32(self.offset), labels)
        return Description("values", 1, "class", "A file.", "Not at all.")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_package_is_importable_without_jax():
    code = """
        import sys
        sys.modules.update(dict.fromkeys(("jax", "jaxlib", "flax", "torch")))
        import lru.dataloaders
        assert "copy-classification" in lru.dataloaders.DATASETS
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True)


def test_preparing_twice_does_the_work_once(raw_dir, cache_dir, monkeypatch):
    folder = SMALL.prepare(raw_dir, cache_dir)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(Copy, "build", None)
    assert SMALL.prepare(raw_dir, cache_dir) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_folders_are_named_after_the_options_that_are_not_defaults(tmp_path):
    assert Copy().folder(tmp_path).name == "copy-classification"
    assert Copy(delay=100).folder(tmp_path) == Copy().folder(tmp_path)
    folders = {Copy(delay=d, seed=s).folder(tmp_path) for d in (3, 4) for s in (0, 1)}
    assert len(folders) == 4
    assert all(folder.name.startswith("copy-classification-") for folder in folders)
    assert Copy(seed=1, delay=3).folder(tmp_path) in folders


def test_an_error_in_the_middle_leaves_nothing(raw_dir, cache_dir, monkeypatch):
    def fails(self, n, rng):
        raise RuntimeError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Copy, "_rows", fails)
        with pytest.raises(RuntimeError, match="disk full"):
            SMALL.prepare(raw_dir, cache_dir)
    assert names(cache_dir) == []
    assert len(SMALL.load(raw_dir, cache_dir).train) == 30


def test_a_killed_process_leaves_nothing_that_is_taken_for_the_data_set(raw_dir, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    code = f"""
        import time
        from lru.dataloaders.sets import copying
        original = copying.Copy._rows
        def slow(self, n, rng):
            print("building", flush=True)
            rows = original(self, n, rng)
            time.sleep(0.02)
            return rows
        copying.Copy._rows = slow
        copying._ROWS_AT_ONCE = 1
        copying.Copy(n_train=3000, n_val=5, n_test=5).prepare({str(raw_dir)!r}, {str(killed)!r})
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline() == b"building\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    (leftover,) = names(killed)
    assert leftover.startswith(".")
    dataset = Copy(n_train=3000, n_val=5, n_test=5)
    assert not dataset.folder(killed).exists()
    recovered = dataset.load(raw_dir, killed)
    assert recovered.card.checksum == dataset.load(raw_dir, whole).card.checksum


@pytest.mark.parametrize("stale", [False, True])
def test_two_at_once_both_get_the_whole(raw_dir, cache_dir, monkeypatch, stale):
    if stale:
        SMALL.prepare(raw_dir, cache_dir)
        monkeypatch.setattr(Copy, "version", 2)
    barrier = threading.Barrier(2, timeout=20)
    original = Copy.build

    def together(self, raw_dir, folder):
        barrier.wait()
        description = original(self, raw_dir, folder)
        barrier.wait()
        return description

    monkeypatch.setattr(Copy, "build", together)
    results = []

    def load() -> None:
        prepared = SMALL.load(raw_dir, cache_dir)
        results.append((prepared.card, prepared.train.values.sum()))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert results[0] == results[1]
    assert names(cache_dir) == [SMALL.folder(cache_dir).name]


def test_a_stale_folder_that_another_process_takes_away_is_made_again(
    raw_dir, cache_dir, monkeypatch
):
    folder = SMALL.prepare(raw_dir, cache_dir)
    original = base.read_card

    def taken_away(path: Path) -> Card:
        monkeypatch.setattr(base, "read_card", original)
        shutil.rmtree(path)
        return original(path)

    monkeypatch.setattr(base, "read_card", taken_away)
    assert SMALL.prepare(raw_dir, cache_dir) == folder
    assert len(SMALL.load(raw_dir, cache_dir).train) == 30


@pytest.mark.parametrize("file", ["train.values.npy", "val.labels.npy", "test.offsets.npy"])
def test_a_changed_byte_is_noticed(raw_dir, cache_dir, file):
    folder = SMALL.prepare(raw_dir, cache_dir)
    content = bytearray((folder / file).read_bytes())
    content[-9] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(CacheError, match=f"delete {folder} and prepare again"):
        SMALL.load(raw_dir, cache_dir)


def test_large_arrays_are_verified_on_request_only(raw_dir, cache_dir, monkeypatch):
    monkeypatch.setattr(base, "VERIFIED_ON_LOAD", 0)
    folder = SMALL.prepare(raw_dir, cache_dir)
    content = bytearray((folder / "train.values.npy").read_bytes())
    content[-9] ^= 1
    (folder / "train.values.npy").write_bytes(content)
    assert len(SMALL.load(raw_dir, cache_dir).train) == 30
    with pytest.raises(CacheError, match="checksum"):
        SMALL.load(raw_dir, cache_dir, verify=True)


def test_a_truncated_array_is_noticed_however_large(raw_dir, cache_dir, monkeypatch):
    monkeypatch.setattr(base, "VERIFIED_ON_LOAD", 0)
    folder = SMALL.prepare(raw_dir, cache_dir)
    os.truncate(folder / "train.values.npy", 200)
    with pytest.raises(CacheError, match="split 'train' cannot be read"):
        SMALL.load(raw_dir, cache_dir)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "copy-classification"}'])
def test_a_damaged_card_is_noticed(raw_dir, cache_dir, text):
    folder = SMALL.prepare(raw_dir, cache_dir)
    (folder / CARD_NAME).write_text(text)
    with pytest.raises(CacheError, match=r"card\.json cannot be read"):
        SMALL.load(raw_dir, cache_dir)


def test_another_version_prepares_again(raw_dir, cache_dir, monkeypatch):
    folder = SMALL.prepare(raw_dir, cache_dir)
    monkeypatch.setattr(Copy, "version", 2)
    assert SMALL.prepare(raw_dir, cache_dir) == folder
    assert json.loads((folder / CARD_NAME).read_text())["version"] == 2


def test_changed_raw_files_are_read_again_and_missing_ones_are_not_missed(raw_dir, cache_dir):
    numbers = raw_dir / "numbers.txt"
    numbers.write_text("0.25\n0.75\n")
    assert FromFile().load(raw_dir, cache_dir).train.inputs.ravel().tolist() == [0.25, 0.75]
    numbers.write_text("0.5\n1.0\n")
    stamp = time.time() + 5
    os.utime(numbers, (stamp, stamp))
    prepared = FromFile().load(raw_dir, cache_dir)
    assert prepared.train.inputs.ravel().tolist() == [0.5, 1.0]
    assert list(prepared.card.raw_files) == ["numbers.txt"]
    numbers.unlink()
    assert FromFile().load(raw_dir, cache_dir).card == prepared.card
    assert names(cache_dir) == ["from-file"]


PLUGIN = """
from dataclasses import dataclass
import numpy as np
from lru.dataloaders import Dataset, Description, register, write_dense

@register
@dataclass(frozen=True)
class Plugged(Dataset):
    name = "plugged"

    def build(self, raw_dir, folder):
        for split in self.split_names:
            value = np.full((1, 1, 1), {value}, np.float32)
            write_dense(folder, split, value, np.zeros(1, np.int32))
        return Description("values", 1, "class", "Written down.", "With itself.")
"""


@pytest.fixture
def plugged(monkeypatch, tmp_path):
    """The data set of a plugin whose file is written anew each time, in a process of its own."""
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def defined(value: float) -> Dataset:
        path = tmp_path / "plugged.py"
        path.write_text(PLUGIN.format(value=value))
        sys.modules.pop(f"plugin {path}", None)
        DATASETS._entries.pop("plugged", None)
        load_plugins(str(path))
        return DATASETS["plugged"]()

    yield defined
    sys.modules.pop(f"plugin {tmp_path / 'plugged.py'}", None)


def test_a_data_set_is_made_again_when_the_file_that_defines_it_has_changed(
    raw_dir, cache_dir, plugged
):
    folder = plugged(0.5).prepare(raw_dir, cache_dir)
    made = folder.stat().st_ino
    assert plugged(0.5).load(raw_dir, cache_dir).train.inputs.item() == 0.5
    assert folder.stat().st_ino == made
    assert SMALL.load(raw_dir, cache_dir).card.code == "", "its version says it"
    assert plugged(0.25).load(raw_dir, cache_dir).train.inputs.item() == 0.25


@dataclass(frozen=True)
class Given(Dataset):
    """Has the same rows, of 1 to 3 tokens, in all splits."""

    name: ClassVar[str] = "given"
    labels: ClassVar[Any]
    rows: ClassVar[list[list[int]]] = [[1], [2, 1, 2], [2, 2]]
    targets: ClassVar[Any] = "class"
    groups: ClassVar[Any] = None

    def build(self, raw_dir: Path, folder: Path) -> Description:
        for split in self.split_names:
            values = np.array([token for row in self.rows for token in row], np.uint8)
            np.save(cache.file_of(folder, split, "values"), values)
            offsets = np.cumsum([0, *map(len, self.rows)])
            np.save(cache.file_of(folder, split, "offsets"), offsets)
            labels = np.array(self.labels)
            stored = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)
            np.save(cache.file_of(folder, split, "labels"), stored)
        words = ("", "a", "b")
        return Description("tokens", 2, self.targets, "None.", "Not.", words, self.groups)


STEPS = [[0, -1, -1], [1, given(1), 0], [1, given(0), -1]]
NAN = np.nan
VALUES = [[[NAN], [NAN], [NAN]], [[1.0], [NAN], [2.0]], [[1.0], [6.0], [NAN]]]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"labels": [0, 1, 2]}, "given, train: labels are not all 0 to 1"),
        ({"labels": [0, 1, -1]}, "given, train: labels are not all 0 to 1"),
        ({"labels": [0, 1, -2]}, "given, train: labels are not all 0 to 1"),
        (
            {"labels": np.array(STEPS) * 4, "targets": "class_per_step"},
            "labels are not all 0 to 1, or -2 to -3 where they are given, or -1 for none",
        ),
        (
            {"labels": STEPS},
            r"labels are int32 of shape \(3, 3\), but those of targets 'class' are classes \[n\]",
        ),
        (
            {"labels": [0, 1, 1], "targets": "class_per_step"},
            r"are classes \[n, T\]",
        ),
        (
            {"labels": np.zeros((3, 3), int), "targets": "class_per_step"},
            "given, train: there are labels beyond the ends of rows",
        ),
        (
            {"labels": given(np.zeros((3, 3), int)), "targets": "class_per_step"},
            "given, train: there are labels beyond the ends of rows",
        ),
        (
            {"labels": [0, 1, 1], "groups": (2, 2)},
            "given: groups are 2, 2 rows, but must be at least 1 each and the 3 of train together",
        ),
        (
            {"labels": [[1.0], [NAN], [1.0]], "targets": "values"},
            "given, train: labels are not all finite numbers$",
        ),
        (
            {"labels": np.array(VALUES) * np.inf, "targets": "values_per_step"},
            "labels are not all finite numbers, or NaN where a step has none",
        ),
        (
            {"labels": np.nan_to_num(VALUES), "targets": "values_per_step"},
            "given, train: there are labels beyond the ends of rows",
        ),
        ({"labels": VALUES, "targets": "values"}, r"'values' are values \[n, K\]"),
        ({"labels": [0, 1, 1], "rows": [[0], [1], [2]]}, "given, train: ids are 0 to 2"),
        ({"labels": [0, 1, 1], "rows": [[1], [2], [3]]}, "given, train: ids are 1 to 3"),
        ({"labels": np.zeros(0, np.int32), "rows": []}, "given: split 'train' has no rows"),
    ],
)
def test_wrong_contents_do_not_get_into_the_cache(raw_dir, cache_dir, monkeypatch, facts, message):
    monkeypatch.setattr(Given, "labels", STEPS, raising=False)
    monkeypatch.setattr(Given, "targets", "class_per_step")
    assert Given().load(raw_dir, cache_dir / "right").train.labels.tolist() == STEPS
    monkeypatch.setattr(Given, "targets", "class")
    for name, value in facts.items():
        monkeypatch.setattr(Given, name, value)
    with pytest.raises(ValueError, match=message):
        Given().prepare(raw_dir, cache_dir)
    assert names(cache_dir) == ["right"]


@pytest.mark.parametrize(("kind", "targets"), [("values", "tokens"), ("text", "class")])
def test_targets_must_fit_the_kind_of_data(kind, targets):
    with pytest.raises(ValueError, match=f"only for a text or rows of tokens, got '{targets}' for"):
        Description(kind=kind, n_classes=2, targets=targets, provenance="Given.", comparable="No.")


@dataclass(frozen=True)
class Longer(FromFile):
    """Has rows to train on, and two splits to evaluate on."""

    name: ClassVar[str] = "longer"
    split_names: ClassVar[tuple[str, ...]] = ("train", "short", "longest")


def test_splits_are_those_that_the_data_set_names(raw_dir, cache_dir, monkeypatch):
    (raw_dir / "numbers.txt").write_text("0.25\n0.75\n")
    prepared = Longer().load(raw_dir, cache_dir)
    assert list(prepared.splits) == list(prepared.card.splits) == ["train", "short", "longest"]
    assert prepared.train is prepared.splits["train"]
    with pytest.raises(AttributeError, match="longer has no split 'val'; it has train, short, lon"):
        _ = prepared.val
    monkeypatch.setattr(Longer, "split_names", ("train", "short"))
    assert list(Longer().load(raw_dir, cache_dir).splits) == ["train", "short"]


def test_a_split_that_is_not_written_is_named(raw_dir, cache_dir, monkeypatch):
    (raw_dir / "numbers.txt").write_text("0.25\n0.75\n")

    def build(dataset, raw_dir, folder):
        description = FromFile.build(dataset, raw_dir, folder)
        for path in folder.glob("short.*"):
            path.unlink()
        return description

    monkeypatch.setattr(Longer, "build", build)
    with pytest.raises(ValueError, match=r"longer: build has written no split 'short', but split_"):
        Longer().prepare(raw_dir, cache_dir)
    assert not list(cache_dir.glob("[!.]*"))


def test_an_optional_split_is_left_out_where_it_is_not_written(raw_dir, cache_dir, monkeypatch):
    (raw_dir / "numbers.txt").write_text("0.25\n0.75\n")
    monkeypatch.setattr(Longer, "optional_splits", ("longest", "other"))
    monkeypatch.setattr(Longer, "split_names", ("train", "longest"))
    whole = Longer().load(raw_dir, cache_dir)
    monkeypatch.setattr(Longer, "split_names", ("train", "longest", "other"))
    # What is there will do, without a split that nobody asked to be written.
    monkeypatch.setattr(Longer, "build", None)
    assert Longer().load(raw_dir, cache_dir).splits.keys() == whole.splits.keys()


def test_variants_are_names_with_options_that_others_win_over(monkeypatch):
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    monkeypatch.setattr(DATASETS, "_aliases", dict(DATASETS._aliases))
    monkeypatch.setattr(FromFile, "variants", {"from-file-2": {"offset": 2.0}})
    base.register(FromFile)
    assert DATASETS["from-file-2"] is FromFile
    assert dataset_from_options("from-file-2") == FromFile(offset=2.0)
    assert dataset_from_options("from-file-2", {"offset": "3"}) == FromFile(offset=3.0)
    assert dataset_from_options("from-file") == FromFile()
    with pytest.raises(ValueError, match="'from-file-2' has no option 'scale'; known: offset"):
        dataset_from_options("from-file-2", {"scale": 1})


def test_a_data_set_without_rows_to_train_on_is_not_registered(monkeypatch):
    monkeypatch.setattr(Longer, "split_names", ("short",))
    with pytest.raises(ValueError, match="longer: split_names must have 'train', got short"):
        base.register(Longer)


def test_targets_of_no_known_type_are_refused():
    # Here the annotations are enforced as well, and come first.
    with pytest.raises((ValueError, TypeError), match="class_per_step"):
        Description("tokens", 2, cast(Any, "step"), "None.", "Not.")


def test_targets_that_are_values_have_moments_and_no_classes(raw_dir, cache_dir, monkeypatch):
    monkeypatch.setattr(Given, "labels", VALUES, raising=False)
    monkeypatch.setattr(Given, "targets", "values_per_step")
    card = Given().load(raw_dir, cache_dir).card
    assert (card.targets, card.n_targets) == ("values_per_step", 1)
    assert card.target_mean == [2.5]
    assert card.target_std == pytest.approx([np.std([1, 2, 1, 6])])
    assert card.splits["val"]["class_counts"] == []


@pytest.mark.parametrize(
    ("kind", "former", "targets"),
    [
        ("tokens", "sequence", "class"),
        ("tokens", "step", "class_per_step"),
        ("text", "step", "tokens"),
    ],
)
def test_cards_from_before_targets_had_types_and_groups_are_read(
    raw_dir, cache_dir, monkeypatch, kind, former, targets
):
    folder = SMALL.prepare(raw_dir, cache_dir)
    facts = json.loads((folder / CARD_NAME).read_text())
    for new in ("n_targets", "target_mean", "target_std", "groups"):
        del facts[new]
    (folder / CARD_NAME).write_text(json.dumps(facts | {"kind": kind, "targets": former}))
    monkeypatch.setattr(Copy, "build", None)
    card = SMALL.load(raw_dir, cache_dir).card
    assert (card.targets, card.n_targets, card.target_mean) == (targets, 0, None)
    assert card.groups is None


def test_the_card_of_values_has_moments_and_figures(raw_dir, cache_dir):
    (raw_dir / "numbers.txt").write_text("0\n0.5\n0.5\n1\n")
    card = FromFile().load(raw_dir, cache_dir).card
    assert card.mean == [0.5]
    assert card.std == pytest.approx([np.std([0, 0.5, 0.5, 1])])
    assert (card.kind, card.n_features, card.vocab_size, card.max_length) == ("values", 1, None, 2)
    assert card.splits["val"] == {
        "examples": 2,
        "min_length": 2,
        "mean_length": 2.0,
        "max_length": 2,
        "class_counts": [2],
    }
    assert card.options == {"offset": 0.0}
