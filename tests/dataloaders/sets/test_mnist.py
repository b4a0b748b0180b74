from hashlib import sha256

import numpy as np
import pytest

from lru.dataloaders.sets.idx import Published
from lru.dataloaders.sets.mnist import Mnist, PermutedMnist, PooledMnist, pixel_order

from ..conftest import real_file
from .test_idx import NAMES, contents, write


def test_the_pixels_come_in_the_published_order():
    order = pixel_order(PermutedMnist())
    assert order[:8].tolist() == [319, 576, 323, 107, 355, 716, 197, 20]
    assert sorted(order.tolist()) == list(range(784))
    assert pixel_order(PermutedMnist(permutation_seed=1)).tolist() != order.tolist()


def test_bit_reversed_pixels_follow_the_reversed_bits():
    order = pixel_order(PermutedMnist(order="bit-reversed")).tolist()
    assert order[:6] == [0, 512, 256, 768, 128, 640]
    assert sorted(order) == list(range(784))


@pytest.mark.parametrize("order", ["random", "bit-reversed"])
def test_all_images_are_read_in_one_order(raw_dir, cache_dir, order):
    write(raw_dir)
    scrambled = PermutedMnist(order=order, n_val=2)
    prepared, plain = (kind.load(raw_dir, cache_dir) for kind in (scrambled, Mnist(n_val=2)))
    for split in ("train", "val", "test"):
        expected = getattr(plain, split).inputs[:, pixel_order(scrambled)]
        np.testing.assert_array_equal(getattr(prepared, split).inputs, expected)


def test_pooled_pixels_are_the_means_of_four(raw_dir, cache_dir):
    write(raw_dir)
    kinds = (PooledMnist, Mnist)
    pooled, plain = (vars(kind(n_val=2).load(raw_dir, cache_dir).train)["inputs"] for kind in kinds)
    images = np.asarray(plain, float).reshape(-1, 28, 28)
    four = [images[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    expected = np.mean(four, axis=0).reshape(len(images), 196, 1)
    np.testing.assert_allclose(pooled, expected, atol=0.5)


def test_protocol_lra_is_named_on_the_card(raw_dir, cache_dir, monkeypatch):
    write(raw_dir)
    published = {
        name: Published("", sha256(content).hexdigest()) for name, content in contents().items()
    }
    monkeypatch.setattr(Mnist, "published", published)
    assert (
        "validation is the test set"
        in Mnist(protocol="lra").load(raw_dir, cache_dir).card.comparable
    )
    standard = Mnist(n_val=2).load(raw_dir, cache_dir).card
    assert "2 of the 6 examples to train on, drawn with seed 0" in standard.comparable
    assert "sha256: the published bytes" in standard.provenance


def test_the_real_images(real_data, cache_dir):
    real_file(real_data / "MNIST" / "raw" / NAMES[0])
    prepared = Mnist().load(real_data, cache_dir)
    assert [len(split) for split in (prepared.train, prepared.val, prepared.test)] == [
        55_000,
        5_000,
        10_000,
    ]
    assert "sha256: the published bytes" in prepared.card.provenance
    assert prepared.card.mean == pytest.approx([0.1307], abs=5e-4)
    assert prepared.card.std == pytest.approx([0.3081], abs=5e-4)
    assert prepared.card.splits["test"]["class_counts"] == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert prepared.train.padded([0, 1], 784).shape == (2, 784, 1)
