from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lru.dataloaders import dataset_from_options
from lru.dataloaders.sets import pathfinder
from lru.dataloaders.sets.lra import lra_places
from lru.dataloaders.sets.pathfinder import (
    Pathfinder,
    Pathfinder64,
    Pathfinder128,
    read_list,
    read_picture,
)

from ..conftest import real_file

LEVEL = "curv_contour_length_14"


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    """Small batches are enough for small splits."""
    monkeypatch.setattr(pathfinder, "ROWS_AT_ONCE", 32)


FEW = {"level": "curv_baseline", "distractors": 1, "n_train": 12, "n_val": 3, "n_test": 4}


def write(
    raw_dir: Path,
    n: int = 24,
    place: str = "pathfinder32",
    level: str = LEVEL,
    side: int = 32,
) -> Path:
    """Official pictures in two folders: picture i is all of brightness i, its label is odd(i)."""
    folder = raw_dir / place / level
    (folder / "metadata").mkdir(parents=True)
    for part in range(2):
        (folder / "imgs" / str(part)).mkdir(parents=True)
        lines = []
        for number in range(n // 2):
            shade = part * n // 2 + number
            name = f"sample_{number}.png"
            Image.new("L", (side, side), shade).save(folder / "imgs" / str(part) / name)
            lines.append(f"imgs/{part} {name} {number} {shade % 2} 1.8 14 4 5 1.5 2 1\n")
        (folder / "metadata" / f"{part}.npy").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("place", lra_places("pathfinder32"))
def test_official_pictures_are_found_and_dealt_into_splits(raw_dir, cache_dir, place):
    write(raw_dir, place=place)
    prepared = Pathfinder().load(raw_dir, cache_dir)
    splits = prepared.train, prepared.val, prepared.test
    assert [len(split) for split in splits] == [20, 2, 2]
    shades = np.concatenate([split.inputs[:, 0, 0] for split in splits])
    assert sorted(shades.tolist()) == list(range(24))
    for split in splits:
        assert split.inputs.shape[1:] == (1024, 1)
        assert (split.inputs == split.inputs[:, :1]).all()
        assert (split.labels == split.inputs[:, 0, 0] % 2).all()
    assert f"{place}/{LEVEL}" in prepared.card.provenance
    assert "hold 20 / 2 / 2 pictures instead of the published" in prepared.card.comparable


def test_the_seed_deals_the_pictures(raw_dir, cache_dir):
    write(raw_dir)
    tests = {
        tuple(Pathfinder(seed=seed).load(raw_dir, cache_dir).test.inputs[:, 0, 0])
        for seed in range(4)
    }
    assert len(tests) > 1


def test_the_one_empty_picture_of_the_release_is_left_out(raw_dir, cache_dir):
    folder = write(raw_dir, 400, level="curv_baseline")
    (folder / "imgs" / "0" / "sample_172.png").write_bytes(b"")
    card = Pathfinder(level="curv_baseline").load(raw_dir, cache_dir).card
    assert sum(split["examples"] for split in card.splits.values()) == 399
    (folder / "imgs" / "0" / "sample_171.png").write_bytes(b"")
    (folder / "metadata" / "0.npy").touch()
    with pytest.raises(ValueError, match=r"sample_171\.png is no whole PNG picture"):
        Pathfinder(level="curv_baseline", seed=1).prepare(raw_dir, cache_dir)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("imgs/0 sample_0.png 0", "3 fields"),
        ("imgs/0 sample_0.png 0 2 1", "the label is '2', not 0 or 1"),
        ("../../0 sample_0.png 0 1", "'../../0/sample_0.png' lies elsewhere"),
        ("/etc passwd 0 1", "'/etc/passwd' lies elsewhere"),
        ("\x93NUMPY\x01", "1 fields"),
    ],
)
def test_a_damaged_list_is_named(tmp_path, line, wrong):
    path = tmp_path / "0.npy"
    path.write_text(f"imgs/0 sample_0.png 0 1 1.8\n{line}\n")
    with pytest.raises(ValueError, match=rf"0\.npy, line 2: {wrong}"):
        read_list(path)


def test_a_damaged_picture_is_named_and_nothing_is_cached(raw_dir, cache_dir):
    path = write(raw_dir) / "imgs" / "1" / "sample_3.png"
    whole = path.read_bytes()
    for content in (whole[:40], whole[:-26], b"GIF89a", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"sample_3\.png is no whole PNG picture"):
            Pathfinder().prepare(raw_dir, cache_dir)
    Image.new("L", (33, 32)).save(path)
    with pytest.raises(ValueError, match=r"sample_3\.png has \(33, 32\) pixels, not 32 by 32"):
        Pathfinder().prepare(raw_dir, cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_too_few_pictures_for_three_splits_are_an_error(raw_dir, cache_dir):
    write(raw_dir, 8)
    with pytest.raises(ValueError, match="has 8 pictures, but three splits need 10"):
        Pathfinder().prepare(raw_dir, cache_dir)


def test_colours_are_read_as_grey(tmp_path):
    Image.new("RGB", (32, 32), (10, 10, 10)).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png", 32) == 10).all()


def test_generated_splits_have_their_sizes_and_are_said_to_be_generated(raw_dir, cache_dir):
    prepared = Pathfinder(**FEW).load(raw_dir, cache_dir)
    assert [len(split) for split in (prepared.train, prepared.val, prepared.test)] == [12, 3, 4]
    assert prepared.train.inputs.max() == 255
    assert set(prepared.train.labels.tolist()) == {0, 1}
    assert "Generated with seed 0." in prepared.card.provenance
    assert (
        "differs from the benchmark in n_train, n_val, n_test, distractors"
        in prepared.card.comparable
    )
    larger = Pathfinder(**{**FEW, "n_train": 20}).load(raw_dir, cache_dir)
    np.testing.assert_array_equal(larger.train.inputs[:12], prepared.train.inputs)
    np.testing.assert_array_equal(larger.test.inputs, prepared.test.inputs)
    other = Pathfinder(**FEW, seed=1).load(raw_dir, cache_dir)
    assert (other.test.inputs != prepared.test.inputs).any()


def test_at_its_defaults_a_generated_set_is_not_comparable_digit_for_digit():
    assert "digit for digit" in Pathfinder(source="generated").generated_compares()
    assert Pathfinder(source="generated", seed=3).changed == {}


def pictures(dataset: Pathfinder) -> np.ndarray:
    images, _ = next(dataset.pictures(np.random.default_rng(0)))
    return images


def test_difficulty_is_in_the_level_and_the_options():
    ink = [
        pictures(dataset).mean()
        for dataset in (
            Pathfinder(level="curv_baseline", distractors=0),
            Pathfinder(level="curv_baseline", distractors=6),
            Pathfinder(level="curv_contour_length_9", distractors=6),
        )
    ]
    assert ink[0] < ink[1] < ink[2]


def test_options_out_of_range_and_impossible_are_named(raw_dir, cache_dir, monkeypatch):
    with pytest.raises(ValueError, match=r"continuity is 0\.5, but must be at least 0\.6"):
        Pathfinder(continuity=0.5)
    with pytest.raises(ValueError, match="distractors is -1, but must be at least 0"):
        Pathfinder(distractors=-1)
    monkeypatch.setattr(pathfinder, "FRUITLESS_BATCHES", 1)
    with pytest.raises(ValueError, match=r"contours of 14 dashes do not fit into 32 by 32 pixels"):
        Pathfinder(**{**FEW, "level": LEVEL}, continuity=40.0).prepare(raw_dir, cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_path_x_is_the_task_at_128_pixels():
    assert dataset_from_options("pathx-classification") == Pathfinder128()
    assert dataset_from_options("pathfinder32-classification") == Pathfinder()


def test_some_of_the_files_are_not_taken_for_none(raw_dir, cache_dir):
    folder = write(raw_dir)
    for path in (folder / "metadata").iterdir():
        path.unlink()
    (folder / "metadata").rmdir()
    with pytest.raises(FileNotFoundError, match="metadata missing; add what is missing, or choose"):
        Pathfinder().prepare(raw_dir, cache_dir)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(Pathfinder, [120, 15, 15]), (Pathfinder64, [11, 1, 1]), (Pathfinder128, [20, 2, 2])],
)
def test_real_pictures(real_data, cache_dir, kind, sizes):
    real_file(real_data / "lra_release" / f"pathfinder{kind.side}")
    prepared = kind().load(real_data, cache_dir)
    assert [figures["examples"] for figures in prepared.card.splits.values()] == sizes
    assert prepared.train.inputs.shape[1:] == (kind.side**2, 1)


def test_generated_pictures_have_as_much_ink_as_real_ones(real_data, cache_dir):
    real_file(real_data / "lra_release" / "pathfinder128")
    real = Pathfinder128().load(real_data, cache_dir).train.inputs
    assert pictures(Pathfinder128()).mean() == pytest.approx(real.mean(), rel=0.2)
