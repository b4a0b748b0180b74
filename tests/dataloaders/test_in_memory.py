"""Arrays and torch data sets as prepared data: what becomes of them, and what is refused."""

import jaxtyping
import numpy as np
import pytest

from lru.dataloaders import Dense, Ragged, from_arrays, from_torch

rng = np.random.default_rng(0)
FLOATS = rng.normal(size=(20, 5, 2))
BYTES = rng.integers(0, 256, (20, 5, 3), dtype=np.uint8)
TOKENS = [rng.integers(0, 9, rng.integers(1, 8)) for _ in range(20)]
SOUNDS = [rng.normal(size=(len(row), 2)) for row in TOKENS]
LABELS = rng.integers(3, size=20)
LABELS[:3] = 0, 1, 2


def all_rows(prepared):
    return [prepared.train, prepared.val, prepared.test]


def test_floats_become_values():
    data = from_arrays("mine", (FLOATS, LABELS))
    assert isinstance(data.train, Dense)
    assert data.train.inputs.dtype == np.float32
    assert (data.card.kind, data.card.n_features, data.card.targets) == ("values", 2, "class")
    assert (data.card.name, data.card.n_classes, data.card.max_length) == ("mine", 3, 5)
    np.testing.assert_allclose(data.card.mean, data.train.inputs.mean((0, 1)), rtol=1e-5)


def test_floats_without_features_have_one():
    assert from_arrays("mine", (FLOATS[..., 0], LABELS)).train.inputs.shape == (16, 5, 1)
    rows = from_arrays("mine", (list(FLOATS[..., 0]), list(LABELS)))
    assert rows.train.inputs.shape == (16, 5, 1)


def test_bytes_with_features_stay_bytes():
    data = from_arrays("mine", (BYTES, LABELS))
    assert data.train.inputs.dtype == np.uint8
    np.testing.assert_allclose(data.card.mean, data.train.inputs.mean((0, 1)) / 255, rtol=1e-5)


def test_whole_numbers_become_tokens_in_the_smallest_type():
    data = from_arrays("mine", (TOKENS, LABELS), n_classes=5)
    assert isinstance(data.train, Ragged)
    assert data.train.values.dtype == np.uint8
    assert (data.card.kind, data.card.vocab_size, data.card.n_classes) == ("tokens", 9, 5)
    square = from_arrays("mine", (np.full((20, 4), 300), LABELS))
    assert square.train.values.dtype == np.uint16
    assert square.card.vocab_size == 301
    assert square.train.lengths.tolist() == [4] * 16


def test_rows_of_values_may_vary_in_length():
    padded = [
        (np.pad(row, ((0, 9), (0, 0)), constant_values=7), label, len(row))
        for row, label in zip(SOUNDS, LABELS, strict=True)
    ]
    for data in (from_arrays("mine", (SOUNDS, LABELS)), from_torch("mine", Items(padded))):
        card, train = data.card, data.train
        assert isinstance(train, Ragged)
        assert train.values.dtype == np.float32
        assert (card.kind, card.n_features, card.vocab_size) == ("values", 2, None)
        np.testing.assert_allclose(card.mean, train.values.mean(0), atol=1e-6)
        np.testing.assert_allclose(card.std, train.values.std(0), atol=1e-6)
    whole = from_arrays("mine", *[(SOUNDS, LABELS)] * 3).train
    for index, row in enumerate(SOUNDS):
        np.testing.assert_array_equal(whole.padded([index], 9)[0, : len(row)], np.float32(row))
        assert not whole.padded([index], 9)[0, len(row) :].any()


def test_bytes_and_rows_without_features_may_vary_in_length_and_be_empty():
    data = from_arrays("mine", *[([BYTES[0], BYTES[1, :2], []], [0, 1, 1])] * 3)
    assert data.train.values.dtype == np.uint8
    assert data.train.lengths.tolist() == [5, 2, 0]
    np.testing.assert_allclose(data.card.mean, data.train.values.mean(0) / 255)
    assert from_arrays("mine", ([row / 2 for row in TOKENS], LABELS)).card.n_features == 1


def test_splits_of_one_length_go_with_those_of_several():
    data = from_arrays("mine", (SOUNDS, LABELS), (FLOATS, LABELS), (SOUNDS[:1], LABELS[:1]))
    assert all(isinstance(split, Ragged) for split in data.splits.values())
    np.testing.assert_array_equal(data.val.padded([3], 5)[0], np.float32(FLOATS[3]))


def test_a_vocabulary_gives_the_tokens_their_texts():
    words = tuple("abcdefghij")
    assert from_arrays("mine", (TOKENS, LABELS), vocabulary=words).card.vocabulary == list(words)


def test_labels_of_steps():
    labels = rng.integers(-1, 4, (20, 5))
    data = from_arrays("mine", (FLOATS, labels))
    assert data.card.targets == "class_per_step"
    assert data.card.n_classes == labels.max() + 1


@pytest.mark.parametrize(
    ("labels", "targets", "n_targets"),
    [
        (rng.normal(size=20), "values", 1),
        (rng.normal(size=(20, 3)), "values", 3),
        (rng.normal(size=(20, 5, 2)), "values_per_step", 2),
    ],
)
def test_floats_are_values_to_be_predicted(labels, targets, n_targets):
    given = (FLOATS, labels)
    for data in (
        from_arrays("mine", given),
        from_torch("mine", Items(list(zip(*given, strict=True)))),
    ):
        card, stored = data.card, data.train.labels
        assert (card.targets, card.n_classes, card.n_targets) == (targets, 0, n_targets)
        assert stored.dtype == np.float32
        flat = stored.reshape(-1, n_targets)
        np.testing.assert_allclose(card.target_mean, flat.mean(0), atol=1e-6)
        np.testing.assert_allclose(card.target_std, flat.std(0), atol=1e-6)


def test_values_of_steps_come_in_rows_as_long_as_those_of_inputs():
    labels = [np.stack([row, row / 2], axis=1) for row in TOKENS]
    data = from_arrays("mine", *[(TOKENS, labels)] * 3)
    assert data.card.targets == "values_per_step"
    for row, label in enumerate(labels):
        np.testing.assert_array_equal(data.train.labels[row, : len(label)], label)
        assert np.isnan(data.train.labels[row, len(label) :]).all()


def test_missing_splits_are_cut_from_train_by_seed_and_nothing_is_lost():
    whole = from_arrays("mine", (TOKENS, np.arange(20)), held_out=0.2, seed=3)
    assert [len(split) for split in all_rows(whole)] == [12, 4, 4]
    seen = np.concatenate([split.labels for split in all_rows(whole)])
    assert sorted(seen) == list(range(20))
    assert seen.tolist() != sorted(seen)
    for split in all_rows(whole):
        for row, label in enumerate(split.labels):
            length = len(TOKENS[label])
            np.testing.assert_array_equal(split.padded([row], 8)[0, :length], TOKENS[label])
    again, other = (
        from_arrays("mine", (TOKENS, np.arange(20)), held_out=0.2, seed=seed) for seed in (3, 4)
    )
    assert again.card.checksum == whole.card.checksum != other.card.checksum


def test_given_splits_stay_as_they_are():
    data = from_arrays(
        "mine", *[(TOKENS[a:b], LABELS[a:b]) for a, b in ((0, 9), (9, 14), (14, 20))]
    )
    assert [len(split) for split in all_rows(data)] == [9, 5, 6]
    np.testing.assert_array_equal(np.concatenate([s.labels for s in all_rows(data)]), LABELS)
    two = from_arrays("mine", (TOKENS[:15], LABELS[:15]), test=(TOKENS[15:], LABELS[15:]))
    assert [len(split) for split in all_rows(two)] == [13, 2, 5]


def test_further_splits_are_taken_by_name():
    items = Items(list(zip(TOKENS, LABELS, strict=True)))
    plain = from_arrays("mine", (TOKENS, LABELS))
    for data in (
        from_arrays("mine", (TOKENS, LABELS), extra={"longer": (TOKENS, LABELS)}),
        from_torch("mine", items, extra={"longer": items}),
    ):
        assert list(data.splits) == list(data.card.splits) == ["train", "val", "test", "longer"]
        np.testing.assert_array_equal(data.splits["longer"].labels, LABELS)
        np.testing.assert_array_equal(data.val.labels, plain.val.labels)


@pytest.mark.parametrize(
    ("examples", "options", "message"),
    [
        (
            (FLOATS[:, 0, 0], LABELS),
            {},
            r"mine: train: inputs must be .*, got float64 of shape \(\d",
        ),
        (None, {}, r"mine: train must be \(inputs, labels\), got NoneType"),
        (FLOATS, {}, r"mine: train must be \(inputs, labels\), got ndarray"),
        ((FLOATS, LABELS[:-1]), {}, "mine: train: there are 20 inputs, but 19 labels"),
        ((FLOATS, LABELS), {"extra": {"val": (FLOATS, LABELS)}}, "extra must not have .* got val"),
        ((FLOATS, LABELS), {"extra": {"a": (FLOATS, [])}}, "mine: a: there are 20 inputs, but 0"),
        ((FLOATS, LABELS), {"held_out": 0.5}, "held_out is 0.5, but must leave at least one of"),
        ((FLOATS, LABELS), {"held_out": 0.0}, "held_out is 0.0, but must leave"),
        ((FLOATS, LABELS > 1), {}, "labels must be whole numbers or floats, got bool"),
        (
            (FLOATS, np.full(20, np.inf)),
            {},
            "mine, train: labels are not all finite numbers",
        ),
        ((FLOATS, LABELS / 2), {"n_classes": 2}, "n_classes is 2, but labels are values"),
        ((TOKENS, [row / 2 for row in TOKENS]), {}, r"one a step, must be rows of shape \[T, K\]"),
        ((FLOATS, LABELS - 1), {}, "labels must be at least 0, got -1"),
        ((FLOATS, LABELS), {"n_classes": 2}, "n_classes is 2, but there is a label 2"),
        ((FLOATS[:0], LABELS[:0]), {}, "must leave at least one of the 0 rows"),
        ((TOKENS, LABELS), {"vocabulary": "abc"}, "vocabulary has 3 entries, but .* a token 8"),
        (([row - 9 for row in TOKENS], LABELS), {}, "tokens must be whole numbers of at least 0"),
        (([*SOUNDS[:-1], np.ones(3)], LABELS), {}, r"as many features, got \(\), \(2,\)"),
        (([row.astype(int) for row in SOUNDS], LABELS), {}, "values must be floats .* got int64"),
        ((TOKENS, [row[1:] for row in TOKENS]), {}, r"labels of row 0 have shape .* it has"),
        ((BYTES.astype(np.int64), LABELS), {}, "values must be floats .* got int64 of shape"),
        ((FLOATS[:, None], LABELS), {}, r"values must be floats .* got float64 of shape \(16, 1"),
        ((TOKENS, np.zeros((20, 3), int)), {}, r"labels have shape .* but the rows need"),
    ],
)
def test_what_does_not_fit_is_refused(examples, options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        from_arrays("mine", examples, **options)


def test_splits_of_two_kinds_are_refused():
    with pytest.raises(ValueError, match="all splits must be tokens, or values of as many"):
        from_arrays("mine", (FLOATS, LABELS), (TOKENS, LABELS), (FLOATS, LABELS))
    with pytest.raises(ValueError, match="mine: val: there are no rows"):
        from_arrays("mine", (FLOATS, LABELS), (FLOATS[:0], LABELS[:0]), (FLOATS, LABELS))


class Items:
    """As torch's data sets are by protocol; like many of them it never raises an IndexError."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i % len(self.items)]


def test_items_are_read_once_in_order():
    items = Items([(row, int(label)) for row, label in zip(FLOATS, LABELS, strict=True)])
    data = from_torch("mine", items, items, items)
    np.testing.assert_array_equal(data.val.inputs, FLOATS.astype(np.float32))
    np.testing.assert_array_equal(data.val.labels, LABELS)


def test_lengths_take_the_padding_off():
    items = [
        (np.pad(row, (0, 9)), label, len(row)) for row, label in zip(TOKENS, LABELS, strict=True)
    ]
    data = from_torch("mine", Items(items), held_out=0.2, seed=1)
    plain = from_arrays("mine", (TOKENS, LABELS), held_out=0.2, seed=1)
    assert data.card.checksum == plain.card.checksum


def test_lengths_take_the_padding_off_the_labels_of_steps():
    items = [([1, 2, 0, 0], [0, 1, 0, 0], 2), ([1, 2, 3, 4], [1, 0, 0, 1], 4)]
    data = from_torch("mine", *[Items(items)] * 3)
    assert data.card.targets == "class_per_step"
    assert data.train.labels.tolist() == [[0, 1, -1, -1], [1, 0, 0, 1]]
    assert data.train.labels_of([0], 2).tolist() == [[0, 1]]
    assert data.card.splits["train"]["class_counts"] == [3, 3]
    wide = [(np.pad(x, (0, 5)), np.pad(y, (0, 5)), length) for x, y, length in items]
    assert from_torch("mine", *[Items(wide)] * 3).card.checksum == data.card.checksum
    rows = [(x[:length], y[:length]) for x, y, length in items]
    assert from_torch("mine", *[Items(rows)] * 3).card.checksum == data.card.checksum


def test_splits_cut_from_rows_with_labels_of_steps_are_as_wide_as_their_rows():
    labels = [rng.integers(-1, 3, len(row)) for row in TOKENS]
    data = from_arrays("mine", (TOKENS, labels))
    longest = [int(split.lengths.max()) for split in all_rows(data)]
    assert len(set(longest)) > 1
    assert [split.labels.shape[1] for split in all_rows(data)] == longest
    for split in all_rows(data):
        beyond = np.arange(split.labels.shape[1]) >= split.lengths[:, None]
        assert (split.labels[beyond] == -1).all()


def test_empty_rows_do_not_decide_what_rows_are():
    data = from_arrays("mine", *[([[], [1, 2], [], [3]], [0, 1, 2, 3])] * 3)
    assert data.train.lengths.tolist() == [0, 2, 0, 1]
    assert data.train.values.tolist() == [1, 2, 3]
    mixed = from_arrays("mine", *[([[1, 2], [0.5, 1.5]], [0, 1])] * 3)
    assert mixed.train.inputs[..., 0].tolist() == [[1, 2], [0.5, 1.5]]


def test_items_of_another_form_are_refused():
    with pytest.raises(ValueError, match=r"items must be \(x, y\) or \(x, y, length\), got int"):
        from_torch("mine", Items([3]))
    with pytest.raises(ValueError, match="got tuple of 4"):
        from_torch("mine", Items([(1, 2, 3, 4)]))


def test_torch_data_sets():
    torch = pytest.importorskip("torch", reason="torch is an extra and not installed")
    from torch.utils.data import IterableDataset, TensorDataset

    x, y = torch.from_numpy(FLOATS), torch.from_numpy(LABELS)

    class Stream(IterableDataset):
        def __iter__(self):
            return zip(x, y, strict=True)

    expected = from_arrays("mine", (FLOATS, LABELS)).card.checksum
    for dataset in (TensorDataset(x, y), Stream()):
        assert from_torch("mine", dataset).card.checksum == expected
    tokens = TensorDataset(torch.randint(5, (20, 6)), y, torch.full((20,), 4))
    assert from_torch("mine", tokens).train.lengths.tolist() == [4] * 16
