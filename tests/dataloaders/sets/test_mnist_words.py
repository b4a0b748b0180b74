"""MNIST in words of bits: files, splits, labels, scans and coordinates."""

import gzip
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lru.dataloaders import dataset_from_options, given
from lru.dataloaders.sets import mnist_coordinates, mnist_pixels
from lru.dataloaders.sets.mnist import PLACES, Mnist
from lru.dataloaders.sets.mnist_coordinates import MnistPca, MnistTsne, MnistUmap
from lru.dataloaders.sets.mnist_pixels import MnistPixels
from lru.dataloaders.sets.mnist_words import ORIGINAL, read_codes

from ..conftest import real_file
from .test_bit_words import rows_of
from .test_idx import NAMES, idx

PARTS = ("train", "validate", "test")


def write_mnist(raw_dir: Path, each: int = 4) -> None:
    """Images of random bytes in which digits take turns: `each` of a digit in both parts."""
    rng = np.random.default_rng(0)
    folder = raw_dir / PLACES[0]
    folder.mkdir(parents=True)
    for images, labels in (NAMES[:2], NAMES[2:]):
        pixels = rng.integers(256, size=(10 * each, 28, 28), dtype=np.uint8)
        (folder / images).write_bytes(idx(pixels))
        (folder / labels).write_bytes(idx(np.arange(10 * each, dtype=np.uint8) % 10))


def write_original(raw_dir: Path, name: str, codes: list[list[int]], parts=PARTS) -> None:
    """The same rows for each digit, d + 1 of them to train on for digit d."""
    (raw_dir / ORIGINAL).mkdir(exist_ok=True)
    for part in parts:
        for digit in range(10):
            rows = codes * (digit + 1 if part == "train" else 1)
            text = "".join(",".join(map(str, row)) + "\n" for row in rows)
            path = raw_dir / ORIGINAL / f"{name.format(digit)}-{part}.csv.gz"
            path.write_bytes(gzip.compress(text.encode()))


# Labels.


@pytest.mark.parametrize(
    ("name", "label", "words"),
    [
        ("mnist-tsne-d2-r4", 9, [2, 1]),
        ("mnist-tsne-d2-r4", 3, [0, 3]),
        ("mnist-umap-d3-r4", 9, [1, 1]),
        ("mnist-umap-d3-r4", 7, [0, 7]),
        ("mnist-umap-d4-r4", 9, [9]),
        ("mnist-pca-r4-p8", 5, [5]),
        ("mnist36", 1, [1]),
        ("mnist8", 8, [1, 0]),
        ("mnist8-ds", 7, [7]),
        ("mnist-even-odd", 1, [1]),
    ],
)
def test_labels_are_words_with_the_most_significant_first(name, label, words):
    assert dataset_from_options(name).named(np.array([label])).tolist() == [words]


@pytest.mark.parametrize(
    ("name", "steps", "scored"),
    [
        # A coordinate of 4 bits: the first label word is predicted after 3 of them.
        ("mnist-tsne-d2-r4", 4, 2),
        ("mnist-umap-d3-r4", 4, 2),
        # The fourth bit is never read.
        ("mnist-umap-d4-r4", 3, 1),
        ("mnist-pca-r2-p5", 5, 2),
        ("mnist-pca-r4-p8", 7, 1),
        # The last pixel is never read.
        ("mnist01", 99, 1),
        ("mnist8", 99, 2),
        ("mnist8-ds-lrg", 399, 1),
        ("mnist01-gen", 99, 99),
    ],
)
def test_rows_have_a_step_less_than_the_original_has_words(name, steps, scored):
    dataset = dataset_from_options(name)
    codes = np.zeros((3, dataset.side**2 if "side" in vars(dataset) else 8), np.uint8)
    labels = np.array([0, max(dataset.labels), 0])
    inputs, outputs, is_scored = dataset.sequences(codes[:, : vars(dataset).get("d", None)], labels)
    assert inputs.shape == outputs.shape == (3, steps + 1)
    assert (
        np.broadcast_to(is_scored, outputs.shape)[0, 1:].tolist()
        == [False] * (steps - scored) + [True] * scored
    )
    if scored < 3:
        np.testing.assert_array_equal(outputs[:, -scored:], dataset.named(labels))
        assert not outputs[:, :-scored].any()


def test_bits_of_coordinates_are_read_in_parallel_and_components_in_turn():
    # 0b1010_0110 and 0b0110_0001: the bits of both, the most significant first.
    codes = np.array([[0b10100110, 0b01100001]], np.uint8)
    words = MnistTsne(r=5).sequences(codes, np.array([6])).inputs
    assert words.tolist() == [[0b10, 0b01, 0b11, 0b00, 0b00, 0]]
    components = np.array([[0b10100110, 0b01100001, 255, 0, 1, 2, 3, 4]], np.uint8)
    words = MnistPca(r=3, p=3).sequences(components, np.array([6])).inputs
    assert words.tolist() == [[0b101, 0b011, 0b111, 0]]


# Splits and files.


def test_our_own_preparation_splits_each_digit(raw_dir, cache_dir):
    write_mnist(raw_dir)
    prepared = dataset_from_options("mnist36", {"n_val": 1}).load(raw_dir, cache_dir)
    assert prepared.card.groups == [3, 3]
    assert prepared.card.provenance.startswith("Prepared by ourselves. Read from the four idx")
    images = np.frombuffer((raw_dir / PLACES[0] / NAMES[0]).read_bytes(), np.uint8, offset=16)
    scans = mnist_pixels.scanned(images.reshape(-1, 28, 28), 10, deskew=False)[:, :99] >> 1
    expected = [row.tobytes() for digit in (3, 6) for row in scans[digit::10]]
    rows = {}
    for split, each in (("train", 3), ("val", 1), ("test", 4)):
        words, labels = rows_of(prepared.splits[split])
        assert labels[:, -1].tolist() == [0] * each + [1] * each
        assert (given(labels[:, :-1]) == 0).all()
        rows[split] = [row.astype(np.uint8).tobytes() for row in words]
    # No image is in two splits.
    assert Counter(rows["train"] + rows["val"]) == Counter(expected)
    other = dataset_from_options("mnist36", {"n_val": 1, "seed": 1}).load(raw_dir, cache_dir)
    assert not np.array_equal(other.val.values, prepared.val.values)
    with pytest.raises(ValueError, match="n_val is 4, but must be less than the 4 images of digit"):
        dataset_from_options("mnist36", {"n_val": 4}).load(raw_dir, cache_dir)


def test_the_files_of_the_original_are_read_where_they_are(raw_dir, cache_dir):
    write_mnist(raw_dir)
    own = MnistTsne(files="original")
    with pytest.raises(
        FileNotFoundError, match=r"files is 'original', but .*tsne-2-0-train\.csv\."
    ):
        own.load(raw_dir, cache_dir)
    write_original(raw_dir, "mnist-tsne-2-{}", [[243, 177]])
    prepared = MnistTsne().load(raw_dir, cache_dir)
    assert prepared.card.provenance == "Read from the original's files in mnist_quantum."
    assert prepared.card.groups == list(range(1, 11))
    # 243 = 0b11110011, 177 = 0b10110001.
    words, labels = rows_of(prepared.test)
    assert words.tolist() == [[3, 2, 3, 3]] * 10
    assert labels[:, 2:].tolist() == [[digit >> 2, digit & 3] for digit in range(10)]
    write_original(raw_dir, "mnist-simple-{}", [[7, 6, *[0] * 98]])
    for digits, files, whose in (("36", "auto", "the original's"), ("36", "own", "the four idx")):
        dataset = MnistPixels(digits=digits, files=files, n_val=1)
        assert f"Read from {whose}" in dataset.load(raw_dir, cache_dir).card.provenance
    prepared = MnistPixels(digits="0123", scans=3, label="image", files="original")
    words, labels = rows_of(prepared.load(raw_dir, cache_dir).test)
    # The label is read in place of the first pixel, and all others but the last; none is given.
    assert words[:, :3].tolist() == [[digit, 6, 0] for digit in range(4)]
    assert labels[:, :2].tolist() == [[6, 0]] * 4
    for lacking in (MnistPca(files="original"), MnistPixels(files="original", side=20)):
        with pytest.raises(FileNotFoundError, match="the original has none for these options"):
            lacking.load(raw_dir, cache_dir)


def test_the_original_may_have_no_umap_to_test_on(raw_dir, cache_dir):
    write_original(raw_dir, "mnist-umap-2-{}", [[243, 177]], ["train", "validate"])
    prepared = MnistUmap().load(raw_dir, cache_dir)
    assert list(prepared.splits) == ["train", "val"]
    write_original(raw_dir, "mnist-umap-2-{}", [[243, 177]])
    assert list(MnistUmap().load(raw_dir, cache_dir).splits) == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("text", "packed"), [(b"1,x\n", True), (b"1,256\n", True), (b"", True), (b"1,2\n", False)]
)
def test_damaged_files_of_the_original_are_named(raw_dir, cache_dir, text, packed):
    write_original(raw_dir, "mnist-tsne-2-{}", [[243, 177]])
    path = raw_dir / ORIGINAL / "mnist-tsne-2-3-validate.csv.gz"
    path.write_bytes(gzip.compress(text) if packed else text)
    with pytest.raises(ValueError, match=r"2-3-validate\.csv\.gz is no compressed file of rows"):
        MnistTsne().load(raw_dir, cache_dir)


# Coordinates.


def test_coordinates_are_computed_once_and_shared(raw_dir, cache_dir, monkeypatch):
    write_mnist(raw_dir)
    calls = []

    def fitted(dataset, pixels, labels):
        calls.append(dataset)
        assert labels.tolist() == [digit for digit in range(10) for _ in range(4 - dataset.n_val)]
        return {split: rows[:, 300 : 300 + dataset.d] for split, rows in pixels.items()}

    monkeypatch.setattr(MnistTsne, "fitted", fitted)
    four, five = (MnistTsne(r=r, n_val=1).load(raw_dir, cache_dir) for r in (4, 5))
    assert len(calls) == 1
    np.testing.assert_array_equal(rows_of(four.train)[0], rows_of(five.train)[0][:, :4])
    MnistTsne(n_val=2).load(raw_dir, cache_dir)
    MnistTsne(d=3, n_val=1).load(raw_dir, cache_dir)
    assert len(calls) == 3
    kept = sorted(path.name for path in (raw_dir / mnist_coordinates.OWN).iterdir())
    assert [name[:7] for name in kept] == ["tsne-2-", "tsne-2-", "tsne-3-"]


def test_bytes_of_coordinates_are_quantiles_of_train():
    rng = np.random.default_rng(0)
    train = 5 * rng.normal(size=(4_000, 2)) + 3
    values = {"train": train, "test": np.array([[3.0, -99.0], [99.0, 3 + 5 * 0.6745]])}
    found = mnist_coordinates.as_bytes(values)
    shares = np.bincount(found["train"].ravel() >> 5, minlength=8) / 8_000
    assert shares == pytest.approx([1 / 8] * 8, abs=0.02)
    assert found["test"].ravel() == pytest.approx([127.5, 0, 255, 191.5], abs=4)


def test_principal_components_are_those_of_train():
    rng = np.random.default_rng(0)
    axes = np.array([[0.6, 0.8, 0], [0.8, -0.6, 0]])
    along = rng.normal(size=(500, 2)) * [3, 1]
    pixels = {"train": 5 + along @ axes, "test": 5 + np.array([[6, 8, 7], [0, 0, 0.0]])}
    found = mnist_coordinates.principal_components(pixels, 2)
    np.testing.assert_allclose(found["train"], along - along.mean(axis=0), atol=0.3)
    np.testing.assert_allclose(found["test"][0] - found["test"][1], [10, 0], atol=0.3)


@pytest.mark.parametrize("name", ["mnist-tsne", "mnist-umap"])
def test_a_missing_library_is_named_with_its_extra(name, raw_dir, tmp_path):
    write_mnist(raw_dir)
    code = (
        "import sys; sys.modules.update(openTSNE=None, umap=None); import lru.dataloaders.__main__"
    )
    command = [
        "prepare",
        name,
        "--option",
        "n_val=1",
        "--raw_dir",
        raw_dir,
        "--cache_dir",
        tmp_path,
    ]
    done = subprocess.run(
        [sys.executable, "-c", f"{code} as program; program.main()", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert 'which is not installed: pip install "lru-jax[quantum]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", [MnistTsne, MnistUmap])
def test_the_libraries_embed_a_few_images(kind, raw_dir, cache_dir, monkeypatch):
    pytest.importorskip(kind.module, reason="the extra quantum is needed")
    parameters = mnist_coordinates.PARAMETERS[kind.method]
    for name in parameters.keys() & {"early_exaggeration_iter", "n_iter", "n_epochs"}:
        monkeypatch.setitem(parameters, name, 6)
    write_mnist(raw_dir, each=15)
    prepared = kind(n_val=2).load(raw_dir, cache_dir)
    assert [len(split) for split in prepared.splits.values()] == [130, 20, 150]


# Images.


def test_otsu_parts_dark_from_light():
    grey = np.array([[10, 12, 14, 200, 210], [0, 0, 0, 0, 255], [7, 7, 7, 7, 7]])
    dark = grey <= mnist_pixels.otsu(grey)[:, None]
    assert dark[:2].tolist() == [[True] * 3 + [False] * 2, [True] * 4 + [False]]


def test_scans_are_along_rows_along_columns_and_of_the_turned_image():
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 4:24, 6:8] = 255
    codes = mnist_pixels.scanned(image, 10, deskew=False).reshape(10, 10)
    rows, columns, turned = ((codes >> bit) & 1 for bit in (2, 1, 0))
    # One column of ink: the second of ten.
    assert (rows == 0).nonzero()[1].tolist() == [1] * 10
    np.testing.assert_array_equal(columns, rows.T)
    # Left of the middle before, it is below and right of it, along a rising diagonal.
    ink = np.argwhere(turned == 0)
    assert set(ink.sum(axis=1)) == {14}
    assert len(ink) == 5
    large = mnist_pixels.scanned(image, 20, deskew=False).reshape(20, 20) >> 2
    assert (large == 0).nonzero()[1].tolist() == [2, 3] * 20


def test_slanted_digits_are_straightened():
    image = np.zeros((1, 28, 28), np.uint8)
    for row in range(6, 22):
        image[0, row, 20 - row // 2 - 1 : 20 - row // 2 + 1] = 255
    slanted, upright = (
        np.argwhere((mnist_pixels.scanned(image, 10, deskew=deskew).reshape(10, 10) >> 2) == 0)
        for deskew in (False, True)
    )
    assert abs(np.corrcoef(slanted.T)[0, 1]) > 0.9
    assert abs(np.cov(upright.T)[0, 1]) < 0.2 * abs(np.cov(slanted.T)[0, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digits": "63"}, "digits is '63', but must be two or more digits in ascending order"),
        ({"digits": "3"}, "digits is '3', but must be two or more"),
        ({"scans": 1}, "scans is 1, but must be 2 or 3"),
        ({"side": 28}, "side is 28, but must be 10 or 20"),
        ({"digits": "01234", "label": "image"}, "only 4 labels fit into a word of 2 scans"),
        ({"label": "name"}, "must be one of digit, parity, image"),
    ],
)
def test_pixels_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        dataset_from_options("mnist-pixels", options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist-tsne", "d is 8, but must be at most 3"),
        ("mnist-umap", "d is 8, but must be at most 7"),
    ],
)
def test_coordinates_out_of_range_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        dataset_from_options(name, {"d": 8})


# The real files.


def test_our_own_scans_are_nearly_those_of_the_original(real_data):
    """Its rows are in another order: each is compared with the most like of ours."""
    path = real_file(real_data / ORIGINAL / "mnist-simple-1-test.csv.gz")
    real_file(real_data / PLACES[0] / NAMES[0])
    images, labels = Mnist().read(real_data)[0]["test"]
    own = mnist_pixels.scanned(images[labels == 1].reshape(-1, 28, 28), 10, deskew=False)
    original = read_codes(path)
    assert len(original) == len(own) == 1135
    plus_or_minus = [(codes >> 2).astype(np.float32) * 2 - 1 for codes in (original, own)]
    nearest = own[(plus_or_minus[0] @ plus_or_minus[1].T).argmax(axis=1)]
    equal = [np.mean((original >> bit & 1) == (nearest >> bit & 1)) for bit in (2, 1, 0)]
    assert equal[0] == equal[1] > 0.997
    assert equal[2] > 0.98


@pytest.mark.parametrize("name", ["mnist01", "mnist-tsne-d2-r4", "mnist-umap-d2-r4"])
def test_the_files_of_the_original(name, real_data, cache_dir):
    kind = dataset_from_options(name, {"files": "original"})
    real_file(real_data / ORIGINAL / f"{kind.original_name().format(0)}-train.csv.gz")
    prepared = kind.load(real_data, cache_dir)
    digits = [5424, 6243, 5459, 5632, 5343, 4922, 5419, 5766, 5352, 5450]
    assert prepared.card.groups == digits[: len(kind.numerals)]
    assert len(prepared.val) == 500 * len(kind.numerals)
    if name == "mnist01":
        assert np.mean(rows_of(prepared.test)[0] >> 1) == pytest.approx(0.74, abs=0.04)
    else:
        # As good as uniform.
        assert np.bincount(rows_of(prepared.train)[0][:, 0]).min() > 0.15 * sum(digits)
