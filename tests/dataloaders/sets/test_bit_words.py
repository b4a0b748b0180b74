"""Sequences of words of bits: what is read, what is predicted and what is given."""

import itertools

import numpy as np
import pytest

from lru.dataloaders import NO_TARGET, dataset_from_options, given, views
from lru.dataloaders.sets.bit_words import Sequences
from lru.dataloaders.sets.dna import Dna
from lru.dataloaders.sets.elman import ElmanLetter, ElmanXor
from lru.dataloaders.sets.memorised import QUOTATIONS, SimpleQuotes, SimpleSequences
from lru.dataloaders.sets.shakespeare import ShakespeareSymbols
from lru.dataloaders.sets.symbols import ALPHABET, in_symbols

FEW = {"n_train": 40, "n_val": 3, "n_test": 4}


def rows_of(split):
    """Words that are read, `[n, T]`, and labels."""
    length = int(split.lengths[0])
    return split.values.reshape(-1, length).astype(int) - 1, split.labels


def test_step_t_reads_word_t_and_predicts_word_t_plus_1(tmp_path):
    dataset = SimpleSequences()
    part = Sequences(
        np.array([[0, 1, 2, 3]]), np.array([[4, 5, 6, 7]]), np.array([[True, True, False, True]])
    )
    for split in dataset.split_names:
        dataset.write(tmp_path, split, 3, [part, part])
    labels = np.load(tmp_path / "train.labels.npy")
    assert np.load(tmp_path / "train.values.npy").tolist() == [1, 2, 3] * 2
    # The last word in and the first out have no part in it.
    assert labels.tolist() == [[5, given(6), 7]] * 2
    assert given(given(6)) == 6
    assert given(0) < NO_TARGET


@pytest.mark.parametrize("name", ["elman-xor", "elman-letter", "dna"])
def test_generated_rows_depend_on_the_seed_and_no_other_size(name, raw_dir, cache_dir):
    dataset = dataset_from_options(name, FEW | {"sentence_length": 9})
    prepared = dataset.load(raw_dir, cache_dir)
    more = dataset_from_options(name, FEW | {"sentence_length": 9, "n_train": 5_000}).load(
        raw_dir, cache_dir
    )
    other = dataset_from_options(name, FEW | {"sentence_length": 9, "seed": 1}).load(
        raw_dir, cache_dir
    )
    sizes = [len(split) for split in prepared.splits.values()]
    assert sizes == [40, 3, 4]
    assert prepared.card.max_length == 8
    np.testing.assert_array_equal(prepared.val.values, more.val.values)
    assert not np.array_equal(prepared.train.values, other.train.values)
    assert not np.array_equal(prepared.val.values, prepared.train.values[: 3 * 8])
    assert prepared.card.vocab_size == prepared.card.n_classes + 1


def test_every_third_bit_is_the_exclusive_or_and_alone_is_scored(raw_dir, cache_dir):
    dataset = ElmanXor(**FEW, sentence_length=8)
    prepared = dataset.load(raw_dir, cache_dir)
    bits, labels = rows_of(prepared.train)
    # Triples a, b, a ^ b: 8 words make 7 steps, of which step 1 and step 4 foretell words 2 and 5.
    np.testing.assert_array_equal(bits[:, 2::3], bits[:, 0::3][:, :2] ^ bits[:, 1::3][:, :2])
    assert np.unique(bits[:, :2], axis=0).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    scored = labels >= 0
    assert (
        np.flatnonzero(scored.all(0)).tolist() == np.flatnonzero(scored.any(0)).tolist() == [1, 4]
    )
    np.testing.assert_array_equal(labels[:, [1, 4]], bits[:, [2, 5]])
    assert (given(labels[~scored]) == 2).all()
    assert prepared.card.vocabulary == ["", "0", "1", "·", "11"]
    shown = views.label_text(dataset, prepared.train, 0)
    assert shown.startswith("labels: (2) ")


def test_letters_are_syllables_and_consonants_are_one_class(raw_dir, cache_dir):
    prepared = ElmanLetter(**FEW, sentence_length=12).load(raw_dir, cache_dir)
    words, labels = rows_of(prepared.train)
    for row, targets in zip(words, labels, strict=True):
        text = "".join("aiu-bdg"[word] for word in row)
        syllables = text.replace("b", " b").replace("d", " d").replace("g", " g").split()
        assert set(syllables[:-1]) <= {"ba", "dii", "guuu"}
        assert any(syllable.startswith(syllables[-1]) for syllable in ("ba", "dii", "guuu"))
        np.testing.assert_array_equal(targets[:-1], np.where(row[1:] >= 4, 7, row[1:]))
    assert (labels >= 0).all()
    assert set(words[:, 0]) == {4, 5, 6}


@pytest.mark.parametrize("scored", ["last", "all"])
def test_the_marked_base_is_to_be_recalled(raw_dir, cache_dir, scored):
    prepared = Dna(n_train=400, n_val=1, n_test=1, sentence_length=9, scored=scored).load(
        raw_dir, cache_dir
    )
    words, labels = rows_of(prepared.train)
    classes = np.where(labels < 0, given(labels), labels)
    places = set()
    for row, targets, known in zip(words, labels, classes, strict=True):
        (marked,) = np.flatnonzero(row >= 4)
        places.add(int(marked))
        base = row[marked] - 4
        # Word q + 1 of the outputs is that of step q, unless each is at its own input.
        before = marked if scored == "all" else marked - 1
        assert known.tolist() == [0] * before + [base + 4] + [base] * (7 - before)
        assert (targets[:-1] >= 0).all() == (scored == "all")
        assert targets[-1] == base
    assert places == ({0, 1, 2} if scored == "all" else {1, 2, 3})
    assert scored == "all" or set(words[:, 0]) == {0, 1, 2, 3}
    assert prepared.card.vocabulary[1:6] == ["G", "A", "T", "C", "UG"]


def test_two_sequences_are_groups_of_train_and_alone_elsewhere(raw_dir, cache_dir):
    prepared = SimpleSequences(sentence_length=7).load(raw_dir, cache_dir)
    assert prepared.card.groups == [10, 10]
    for split, copies in (("train", 10), ("val", 1), ("test", 1)):
        words, labels = rows_of(prepared.splits[split])
        assert words.tolist() == [[0, 1, 2, 3, 0, 1]] * copies + [[4] * 6] * copies
        assert labels.tolist() == [[1, 2, 3, 0, 1, 2]] * copies + [[4] * 6] * copies


def test_quotations_are_recited_and_consonants_given_in_evaluation(raw_dir, cache_dir):
    prepared = SimpleQuotes(copies=2).load(raw_dir, cache_dir)
    assert prepared.card.groups == [2] * 6
    assert prepared.card.max_length == 69
    assert len(ALPHABET) == prepared.card.n_classes == 32
    words, labels = rows_of(prepared.val)
    for row, targets, quotation in zip(words, labels, QUOTATIONS, strict=True):
        assert "".join(ALPHABET[word] for word in row) == quotation.ljust(70)[:-1]
        known = np.where(targets < 0, given(targets), targets)
        assert "".join(ALPHABET[word] for word in known) == quotation.ljust(70)[1:]
        letters = {ALPHABET[word] for word in known[targets < 0]}
        assert letters <= set("bcdfghjklmnpqrstvwxyz")
        assert not letters & {ALPHABET[word] for word in known[targets >= 0]}
    assert (prepared.train.labels >= 0).all()
    assert np.mean(labels < 0) == pytest.approx(0.42, abs=0.01)


def test_pieces_of_plays_are_in_the_alphabet_and_of_their_own_part(raw_dir, cache_dir):
    assert in_symbols('I\'ll; "Go":\n2 - Ay!') == "i,ll, ,go,, two   ay!"
    text = "".join(f"{letter}!" * 100 for letter in "abcdefghijklmnopqrstuvwxyz")
    (raw_dir / "tinyshakespeare").mkdir()
    (raw_dir / "tinyshakespeare" / "input.txt").write_text(text)
    dataset = ShakespeareSymbols(**FEW, sentence_length=6)
    prepared = dataset.load(raw_dir, cache_dir)
    shown = {
        name: [views.decoded(dataset, prepared.card, row) for row in split.values.reshape(-1, 5)]
        for name, split in prepared.splits.items()
    }
    assert all(piece in text for piece in itertools.chain(*shown.values()))
    held_out = {name: set("".join(pieces)) - {"!"} for name, pieces in shown.items()}
    assert held_out["test"] <= {"y", "z"}
    assert held_out["val"] <= {"w", "x", "y"}
    words, labels = rows_of(prepared.train)
    np.testing.assert_array_equal(labels[:, :-1], words[:, 1:])
    with pytest.raises(ValueError, match="sentence_length is 999, but must be at most the 260 sym"):
        ShakespeareSymbols(sentence_length=999).load(raw_dir, cache_dir)


def test_lengths_out_of_range_are_named():
    for name, least in (("elman-xor", 3), ("dna", 4), ("simple-seq", 2)):
        with pytest.raises(ValueError, match=f"sentence_length is 1, but must be at least {least}"):
            dataset_from_options(name, {"sentence_length": 1})
