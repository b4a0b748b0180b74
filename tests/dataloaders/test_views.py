import dataclasses

import numpy as np
import pytest
from PIL import Image

from lru.dataloaders import NO_TARGET, Dense, from_arrays, given, views
from lru.dataloaders.sets.aan import Aan
from lru.dataloaders.sets.cifar import Cifar, GreyCifar
from lru.dataloaders.sets.copying import Copy
from lru.dataloaders.store.card import check_contents

from .sets import test_aan, test_cifar

SMALL = Copy(n_train=3, n_val=1, n_test=1, delay=2, pattern_length=2, n_symbols=2)


def test_tokens_are_shown_as_text_and_labels_of_steps_in_their_places(raw_dir, cache_dir):
    prepared = SMALL.load(raw_dir, cache_dir)
    labels, size, text = views.row_text(SMALL, prepared.card, prepared.train, 0)
    assert labels.startswith("labels: - - - - ")
    assert size == "6 tokens:"
    pattern = text.split()[:2]
    assert text == f"{' '.join(pattern)} <blank> <go> <blank> <blank>"
    assert labels.split()[-2:] == pattern


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([0.5, 2.0], "label: 0.5,2"),
        ([[0.5, 2], [np.nan, np.nan]], "labels: 0.5,2 -,-"),
        ([NO_TARGET, given(3)], "labels: - (3)"),
        ([3, given(0)], "labels: 3 (0)"),
    ],
)
def test_labels_are_shown(labels, text):
    stored = np.array([labels])
    stored = stored.astype(np.float32 if stored.dtype.kind == "f" else np.int32)
    split = Dense(np.zeros((1, 2, 1), np.uint8), stored)
    assert views.label_text(SMALL, split, 0) == text


def test_rows_of_values_of_several_lengths_are_shown_as_numbers():
    data = from_arrays("mine", *[([[[0.5, 2]], [[1, 1.5], [3, 4]]], [0, 1])] * 3)
    assert list(views.row_text(SMALL, data.card, data.train, 1)) == [
        "label: 1", "2 steps, the first:", "1 1.5", "3 4",
    ]  # fmt: skip


def test_both_documents_of_a_pair_are_shown(raw_dir, cache_dir):
    test_aan.write(raw_dir)
    prepared = Aan().load(raw_dir, cache_dir)
    assert list(views.row_text(Aan(), prepared.card, prepared.val, 0)) == [
        "label: 1 (cites)",
        "4 tokens:",
        "abc<eos>",
        "5 tokens:",
        "ab é<eos>",
    ]


def test_pixels_are_shown_as_they_lie_in_the_image(raw_dir, cache_dir):
    test_cifar.write(raw_dir)
    stored = test_cifar.batch(5)[b"data"][1].reshape(3, 32, 32)
    for kind in (Cifar, GreyCifar):
        dataset = kind(n_val=2)
        prepared = dataset.load(raw_dir, cache_dir)
        image = views.row_picture(dataset, prepared.test, 1)
        assert image.size == (256, 256)
        small = np.asarray(image)[::8, ::8]
        if kind is Cifar:
            np.testing.assert_array_equal(small, stored.transpose(1, 2, 0))
        else:
            colour = Image.fromarray(np.ascontiguousarray(stored.transpose(1, 2, 0)), "RGB")
            np.testing.assert_array_equal(small, np.asarray(colour.convert("L")))
    assert views.row_picture(SMALL, SMALL.load(raw_dir, cache_dir).train, 0) is None


def test_values_that_are_no_image_are_shown_as_numbers(raw_dir, cache_dir):
    test_cifar.write(raw_dir)
    dataset = Cifar(n_val=2)
    prepared = dataset.load(raw_dir, cache_dir)
    label, size, first, *_ = views.row_text(dataset, prepared.card, prepared.test, 0)
    assert label == f"label: {views.class_name(dataset, test_cifar.batch(5)[b'labels'][0])}"
    assert size == "1024 steps, the first:"
    assert first == " ".join(map(str, test_cifar.batch(5)[b"data"][0, ::1024]))


@pytest.mark.parametrize("lengths", [[4], [4, 4], [1, 2, 4], list(range(1, 101)), [5, 9_000]])
def test_a_histogram_counts_every_row_once(lengths):
    lines = list(views.histogram_text(np.array(lengths)))
    assert len(lines) <= views.BINS
    counts = [int(line.split()[3].replace(",", "")) for line in lines]
    assert sum(counts) == len(lengths)
    for line, count in zip(lines, counts, strict=True):
        first, _, last = line.split()[:3]
        low, high = (int(bound.replace(",", "")) for bound in (first, last))
        assert sum(low <= length <= high for length in lengths) == count
    assert lines[int(np.argmax(counts))].endswith("█" * 50)


def test_the_picture_of_lengths_is_written(raw_dir, tmp_path):
    prepared = SMALL.load(raw_dir, tmp_path)
    views.histogram_picture(prepared, tmp_path / "new" / "lengths.png")
    with Image.open(tmp_path / "new" / "lengths.png") as image:
        assert min(image.size) > 300


def test_contents_that_the_card_does_not_know_are_named(raw_dir, cache_dir):
    test_aan.write(raw_dir)
    for dataset, ids in ((SMALL, "1 to 4"), (Aan(), "2 to 7")):
        prepared = dataset.load(raw_dir, cache_dir)
        splits = {"train": prepared.train}
        check_contents(prepared.card, splits)
        short = dataclasses.replace(prepared.card, vocab_size=3)
        with pytest.raises(ValueError, match=rf"train: ids are {ids}, but those .* 1 to 2"):
            check_contents(short, splits)
        few = dataclasses.replace(prepared.card, n_classes=1)
        with pytest.raises(ValueError, match="train: labels are not all 0 to 0"):
            check_contents(few, splits)
