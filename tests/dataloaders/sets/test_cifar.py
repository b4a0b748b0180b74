import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lru.dataloaders.sets.cifar import PLACES, TEST_BATCH, TRAIN_BATCHES, Cifar, GreyCifar, grey

from ..conftest import real_file

NAMES = (*TRAIN_BATCHES, TEST_BATCH)


def batch(seed: int, n: int = 4) -> dict:
    rng = np.random.default_rng(seed)
    return {
        b"data": rng.integers(256, size=(n, 3072), dtype=np.uint8),
        b"labels": rng.integers(10, size=n).tolist(),
        b"batch_label": b"a batch",
    }


def contents() -> dict[str, bytes]:
    return {name: pickle.dumps(batch(seed)) for seed, name in enumerate(NAMES)}


def write(raw_dir: Path, place: str = PLACES[0], **changed: bytes) -> None:
    folder = raw_dir / place
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (contents() | changed).items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("place", PLACES)
def test_pixels_come_with_their_three_colours(raw_dir, cache_dir, place):
    write(raw_dir, place)
    prepared = Cifar(n_val=5).load(raw_dir, cache_dir)
    stored = batch(5)
    assert prepared.test.inputs.shape == (4, 1024, 3)
    for colour in range(3):
        plane = stored[b"data"][:, 1024 * colour : 1024 * (colour + 1)]
        np.testing.assert_array_equal(prepared.test.inputs[:, :, colour], plane)
    assert prepared.test.labels.tolist() == stored[b"labels"]
    assert (len(prepared.train), len(prepared.val)) == (15, 5)
    assert prepared.card.n_features == 3
    assert "not the published sizes" in prepared.card.comparable


def test_grey_is_what_pillow_makes(raw_dir, cache_dir):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(1003, 1024, 3), dtype=np.uint8)
    images[0, :256] = np.arange(256)[:, None]
    luma = grey(images)
    for row in (0, 1, 1002):
        image = Image.fromarray(images[row].reshape(32, 32, 3), "RGB").convert("L")
        np.testing.assert_array_equal(luma[row].reshape(32, 32), np.asarray(image))
    write(raw_dir)
    colour, shades = (kind(n_val=5).load(raw_dir, cache_dir) for kind in (Cifar, GreyCifar))
    np.testing.assert_array_equal(shades.val.inputs, grey(colour.val.inputs))
    assert shades.train.inputs.shape == (15, 1024, 1)


def test_published_names_of_the_grey_task_are_one():
    from lru.dataloaders import dataset_from_options

    assert dataset_from_options("cifar-lra-classification") == GreyCifar()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "is no batch with data and labels"),
        ({b"data": b"12"}, "is no batch with data and labels"),
        (
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
            r"1 labels need uint8 \(1, 3072",
        ),
        ({b"data": np.zeros((1, 3072)), b"labels": [1]}, "float64"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "label that is not 0 to 9"),
        (np.load, "no pickle of plain data"),
    ],
)
def test_damaged_batches_are_named_and_nothing_is_cached(raw_dir, cache_dir, content, message):
    write(raw_dir, data_batch_3=pickle.dumps(content))
    with pytest.raises(ValueError, match=f"data_batch_3 .*{message}"):
        Cifar().prepare(raw_dir, cache_dir)
    assert list(cache_dir.iterdir()) == []


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("kind", "mean", "std"),
    [
        (Cifar, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        (GreyCifar, [0.4810], [0.2390]),
    ],
)
def test_the_real_images(real_data, real_cache, kind, mean, std):
    real_file(real_data / PLACES[0] / TEST_BATCH)
    card = kind().load(real_data, real_cache).card
    assert [figures["examples"] for figures in card.splits.values()] == [45_000, 5_000, 10_000]
    assert card.splits["test"]["class_counts"] == [1_000] * 10
    assert card.mean == pytest.approx(mean, abs=1e-3)
    assert card.std == pytest.approx(std, abs=1e-3)
    assert "The test set is the published one" in card.comparable
