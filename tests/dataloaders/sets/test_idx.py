import gzip
from pathlib import Path

import numpy as np
import pytest

from lru.dataloaders import DATASETS
from lru.dataloaders.files.fetch import MIRROR_VARIABLE, DownloadError
from lru.dataloaders.sets.idx import IdxImages, parse_idx
from lru.dataloaders.sets.mnist import PLACES, Mnist, PooledMnist

NAMES = [Path(source.filename).stem for source in Mnist.sources]
SMALL = Mnist(n_val=2)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


def contents() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    arrays = []
    for n in (6, 4):
        arrays += [
            rng.integers(256, size=(n, 28, 28), dtype=np.uint8),
            np.arange(n, dtype=np.uint8),
        ]
    return dict(zip(NAMES, map(idx, arrays), strict=True))


def write(raw_dir: Path, place: str = PLACES[0], compress: bool = False, **changed: bytes) -> None:
    folder = raw_dir / place
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (contents() | changed).items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def inputs_of(name: str) -> np.ndarray:
    images = np.frombuffer(contents()[name], np.uint8, offset=16)
    return images.reshape(-1, 784, 1)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (kind, place)
        for kind in DATASETS.values()
        if issubclass(kind, IdxImages) and kind is not PooledMnist
        for place in kind.places
    ],
)
def test_files_are_found_and_read_in_the_usual_places(raw_dir, cache_dir, kind, place, compress):
    write(raw_dir, place, compress)
    prepared = kind(n_val=2).load(raw_dir, cache_dir)
    inputs = np.sort(prepared.test.inputs, axis=1)
    np.testing.assert_array_equal(inputs, np.sort(inputs_of(NAMES[2]), axis=1))
    assert prepared.test.labels.tolist() == [0, 1, 2, 3]
    assert "NOT the published bytes" in prepared.card.provenance


def test_validation_is_cut_from_train_by_seed(raw_dir, cache_dir):
    write(raw_dir)
    cuts = set()
    for seed in range(5):
        prepared = Mnist(n_val=2, seed=seed).load(raw_dir, cache_dir)
        train, val = prepared.train.labels.tolist(), prepared.val.labels.tolist()
        assert (len(train), len(val)) == (4, 2)
        assert sorted(train + val) == list(range(6))
        cuts.add(tuple(val))
    assert len(cuts) > 1


def test_the_lra_protocol_trains_on_all_and_validates_on_the_test_split(raw_dir, cache_dir):
    write(raw_dir)
    prepared = Mnist(protocol="lra").load(raw_dir, cache_dir)
    np.testing.assert_array_equal(prepared.train.inputs, inputs_of(NAMES[0]))
    for split in (prepared.val, prepared.test):
        np.testing.assert_array_equal(split.inputs, inputs_of(NAMES[2]))
        assert split.labels.tolist() == [0, 1, 2, 3]
    assert prepared.card.options["protocol"] == "lra"


def test_the_card_describes_it(raw_dir, cache_dir):
    write(raw_dir)
    prepared = SMALL.load(raw_dir, cache_dir)
    card, scaled = prepared.card, prepared.train.inputs / 255.0
    assert (card.kind, card.n_features, card.vocab_size) == ("values", 1, None)
    assert (card.n_classes, card.max_length, card.targets) == (10, 784, "class")
    assert card.mean == pytest.approx([scaled.mean()])
    assert card.std == pytest.approx([scaled.std()])
    assert len(card.raw_files) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no idx file of bytes: it starts with $"),
        (b"\x1f\x8b\x08\x00 compressed twice", "is no idx file of bytes: it starts with 1f 8b 08"),
        (b"\x00\x00\x0d\x03" + bytes(20), "is no idx file of bytes"),
        (b"\x00\x00\x08\x03\x00\x00", "ends within its header, after 6 bytes"),
        (idx(np.zeros((6, 28, 28), np.uint8))[:-1], r"4719 bytes, but its header .* says 4720"),
        (idx(np.zeros((6, 28, 28), np.uint8)) + b"x", r"4721 bytes, but its header .* says 4720"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "truncated or damaged"),
        (idx(np.zeros((6, 14, 14), np.uint8)), r"holds \(6, 14, 14\), not images of 28 by 28"),
        (idx(np.zeros(6, np.uint8)), "not images of 28 by 28"),
    ],
)
def test_damaged_images_are_named_and_nothing_is_cached(raw_dir, cache_dir, content, message):
    write(raw_dir, **{NAMES[0]: content})
    with pytest.raises(ValueError, match=rf"{NAMES[0]}.*{message}"):
        SMALL.prepare(raw_dir, cache_dir)
    assert list(cache_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 2], "not a label for 6 images"), ([0, 1, 2, 3, 4, 10], "holds label 10")],
)
def test_labels_must_fit_the_images(raw_dir, cache_dir, labels, message):
    write(raw_dir, **{NAMES[1]: idx(np.array(labels, np.uint8))})
    with pytest.raises(ValueError, match=rf"{NAMES[1]}.*{message}"):
        SMALL.prepare(raw_dir, cache_dir)


@pytest.mark.parametrize("damage", [lambda file: file[:-20], lambda file: b"no" + file])
def test_a_damaged_gzip_file_is_named(raw_dir, cache_dir, damage):
    write(raw_dir, compress=True)
    path = raw_dir / PLACES[0] / f"{NAMES[2]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{NAMES[2]}\.gz is not a whole gzip file"):
        SMALL.prepare(raw_dir, cache_dir)


def test_a_validation_set_larger_than_train_is_refused(raw_dir, cache_dir):
    write(raw_dir)
    with pytest.raises(ValueError, match="n_val is 6, but must be less than the 6 examples"):
        Mnist(n_val=6).prepare(raw_dir, cache_dir)


def test_missing_files_are_asked_for_by_name(raw_dir, cache_dir, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=rf"put it at .*{PLACES[0]}/{NAMES[0]}\.gz"):
        Mnist().prepare(raw_dir, cache_dir)
    assert not cache_dir.exists()


def test_idx_axes_are_big_endian():
    array = np.arange(600, dtype=np.uint16).astype(np.uint8).reshape(300, 2)
    np.testing.assert_array_equal(parse_idx(idx(array), Path("x")), array)
