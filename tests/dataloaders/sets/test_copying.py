import numpy as np
import pytest

from lru.dataloaders.sets.copying import Copy
from lru.dataloaders.store.arrays import NO_TARGET

SMALL = Copy(n_train=40, n_val=10, n_test=10, n_symbols=5, pattern_length=4, delay=6)


def test_targets_are_the_pattern_at_the_end(raw_dir, cache_dir):
    prepared = SMALL.load(raw_dir, cache_dir)
    vocabulary = prepared.card.vocabulary
    rows = np.arange(40)
    inputs, labels = prepared.train.padded(rows, 14), prepared.train.labels_of(rows, 14)
    for row, targets in zip(inputs, labels, strict=True):
        words = [vocabulary[token] for token in row]
        assert words[4:] == ["<blank>"] * 5 + ["<go>"] + ["<blank>"] * 4
        assert words[:4] == [str(target) for target in targets[-4:]]
        assert (targets[:-4] == NO_TARGET).all()


def test_the_card_describes_it(raw_dir, cache_dir):
    card = SMALL.load(raw_dir, cache_dir).card
    assert (card.kind, card.targets, card.n_classes, card.vocab_size) == (
        "tokens",
        "class_per_step",
        5,
        8,
    )
    assert (card.max_length, card.n_features, card.mean) == (14, None, None)
    assert card.splits["train"]["examples"] == 40
    assert sum(card.splits["train"]["class_counts"]) == 40 * 4


def test_splits_differ_and_do_not_depend_on_each_others_sizes(raw_dir, cache_dir):
    small = SMALL.load(raw_dir, cache_dir)
    large = Copy(n_train=80, n_val=10, n_test=10, n_symbols=5, pattern_length=4, delay=6).load(
        raw_dir, cache_dir
    )
    assert (small.val.values == large.val.values).all()
    assert (small.test.values == large.test.values).all()
    assert (small.val.values != small.test.values).any()


def test_the_seed_decides(raw_dir, tmp_path):
    def checksum(seed: int, folder: str) -> str:
        return (
            Copy(n_train=9, n_val=2, n_test=2, seed=seed)
            .load(raw_dir, tmp_path / folder)
            .card.checksum
        )

    assert checksum(3, "a") == checksum(3, "b")
    assert checksum(3, "a") != checksum(4, "a")


def test_ids_must_fit_into_a_byte():
    with pytest.raises(ValueError, match="n_symbols is 254, but at most 253"):
        Copy(n_symbols=254)
    assert Copy(n_symbols=253).n_symbols == 253
