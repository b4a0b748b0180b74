import pytest

from lru.dataloaders.sets.fashion_mnist import PLACES, FashionMnist

from ..conftest import real_file


def test_the_real_images(real_data, cache_dir):
    real_file(real_data / PLACES[0])
    card = FashionMnist().load(real_data, cache_dir).card
    assert {name: split["examples"] for name, split in card.splits.items()} == {
        "train": 55_000,
        "val": 5_000,
        "test": 10_000,
    }
    assert "sha256: the published bytes" in card.provenance
    assert card.splits["test"]["class_counts"] == [1_000] * 10
    assert card.mean == pytest.approx([0.2860], abs=5e-4)
    assert card.std == pytest.approx([0.3530], abs=5e-4)
