"""Generated tasks: every label is what somebody else would say who reads the row.

The readers here know nothing of how rows are drawn; they also read recorded rows of public
generators.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from lru.dataloaders import NO_TARGET, dataset_from_options
from lru.dataloaders.sets.formal_languages import FormalLanguage, Parity
from lru.dataloaders.sets.mqar import Mqar
from lru.dataloaders.sets.streams import Stream
from tests.peers import cases

SMALL = {"n_train": 60, "n_val": 20, "n_test": 20}
IGNORED = -100
"""The recorded label of a step without a target."""

Words = Sequence[str]


def parity(words: Words) -> str:
    return "odd" if words.count("b") % 2 else "even"


def even_pairs(words: Words) -> str:
    changes = re.findall("(?=ab|ba)", "".join(words))
    return "different" if len(changes) % 2 else "equal"


def cycle_navigation(words: Words) -> str:
    place = 0
    for word in words:
        place = (place + {"STAY": 0, "+1": 1, "-1": 4}[word]) % 5
    return str(place)


def modular_arithmetic(words: Words) -> str:
    assert words[-1] == "="
    assert len(words) % 2 == 0
    return str(eval("".join(words[:-1])) % 5)


LANGUAGES: dict[str, tuple[str, Callable[[Words], str], int]] = {
    "parity": ("parity", parity, 1),
    "even-pairs": ("even_pairs", even_pairs, 1),
    "cycle-navigation": ("cycle_nav", cycle_navigation, 4),
    "modular-arithmetic": ("mod_arith_no_brack", modular_arithmetic, 5),
}
"""Of each language: its recorded name, its reader, and the recorded id of its first answer."""


def vocabulary_of(data) -> list[str]:
    """The words by their ids."""
    return data.card.vocabulary or []


def texts(data, split: str):
    """The words of each row of a split, and its labels."""
    part, vocabulary = data.splits[split], vocabulary_of(data)
    rows, longest = range(len(part)), data.card.splits[split]["max_length"]
    for ids, labels in zip(part.padded(rows, longest), part.labels_of(rows, longest), strict=True):
        yield [vocabulary[k] for k in ids if k], labels


@pytest.mark.parametrize("name", LANGUAGES)
def test_answers_are_those_of_a_reader(name, raw_dir, cache_dir):
    dataset = dataset_from_options(name, SMALL)
    assert isinstance(dataset, FormalLanguage)
    data, read = dataset.load(raw_dir, cache_dir), LANGUAGES[name][1]
    odd = name == "modular-arithmetic"
    for split, low, high in (("train", 3, 40), ("val", 40, 256), ("test", 40, 256)):
        lengths = set()
        for words, label in texts(data, split):
            assert dataset.class_names[label] == read(words)
            lengths.add(len(words))
        assert low <= min(lengths) <= max(lengths) <= high
        assert odd == all(length % 2 == 0 for length in lengths)


@pytest.mark.parametrize("name", LANGUAGES)
def test_recorded_strings_have_their_recorded_answers(name):
    recorded, read, first = LANGUAGES[name]
    dataset, found = dataset_from_options(name), cases.arrays(f"gen_formal/{recorded}")
    assert isinstance(dataset, FormalLanguage)
    ids, lengths = found["inputs"], found["lengths"]
    answers = found["targets"][np.arange(len(ids)), lengths - 1] - first
    # Our ids are those of the recorded rows.
    assert dataset.answers(ids, lengths).tolist() == answers.tolist()
    names = [read([dataset.symbols[k - 1] for k in row if k]) for row in ids]
    assert names == [dataset.class_names[answer] for answer in answers]


@pytest.mark.parametrize("group", ["a5", "s5", "z60"])
def test_words_of_a_group_are_multiplied(group, raw_dir, cache_dir):
    data = dataset_from_options(f"group-{group}", SMALL).load(raw_dir, cache_dir)
    assert data.card.n_classes == {"a5": 60, "s5": 120, "z60": 60}[group]
    assert [data.card.splits[s]["max_length"] for s in ("train", "val")] == [20, 60]
    for words, labels in texts(data, "val"):
        product = "0" if group == "z60" else "01234"
        for word, label in zip(words, labels, strict=True):
            if group == "z60":
                product = str((int(product) + int(word)) % 60)
            else:
                # Each thing goes where the one before has put it.
                product = "".join(word[int(place)] for place in product)
            assert vocabulary_of(data)[1 + label] == product


def recalled(words: Words) -> str:
    """The symbol behind the first occurrence of the last word."""
    return words[words.index(words[-1]) + 1]


@pytest.mark.parametrize("name", ["associative-recall", "induction-heads"])
def test_the_last_word_was_seen_before(name, raw_dir, cache_dir):
    data = dataset_from_options(name, SMALL).load(raw_dir, cache_dir)
    vocabulary = vocabulary_of(data)
    assert data.card.max_length == {"associative-recall": 386, "induction-heads": 257}[name]
    for words, labels in texts(data, "test"):
        assert vocabulary[1 + labels[-1]] == recalled(words)
        assert (labels[:-1] == NO_TARGET).all()
        assert words.count("=>") == (1 if name == "associative-recall" else 2)
        if name == "associative-recall":
            pairs = {*zip(words[:-2:2], words[1:-2:2], strict=True)}
            assert len(dict(pairs)) == len(pairs)
            assert all(int(key) < 19 <= int(value) < 38 for key, value in pairs)
    for words, labels in texts(data, "train"):
        said = [vocabulary[1 + label] for label in labels]
        assert said[:-1] == words[1:]
        assert said[-1] == recalled(words)


def test_train_may_have_one_target_a_row(raw_dir, cache_dir):
    options = {**SMALL, "train_targets": "last", "length": 9}
    data = dataset_from_options("induction-heads", options).load(raw_dir, cache_dir)
    assert all((labels[:-1] == NO_TARGET).all() for _, labels in texts(data, "train"))


@pytest.mark.parametrize("case", ["assoc_recall", "induction_head"])
def test_recorded_rows_of_recall_are_read_alike(case):
    found = cases.arrays(f"gen_recall/{case}")
    for part in ("train", "test"):
        for inputs, labels in zip(found[f"{part}_inputs"], found[f"{part}_labels"], strict=True):
            assert recalled(inputs.astype(str).tolist()) == str(labels[-1])
            expected = inputs[1:] if part == "train" else IGNORED
            assert (labels[:-1] == expected).all()


def check_mqar(tokens: np.ndarray, answers: dict[int, int], vocabulary: int, n_pairs: int):
    """Assert that each key of a row is asked for once, at an even step, and answered right."""
    start, half = 2 * n_pairs, vocabulary // 2
    pairs = dict(zip(tokens[:start:2].tolist(), tokens[1:start:2].tolist(), strict=True))
    assert len(pairs) == n_pairs
    assert all(0 < key < half <= value < vocabulary for key, value in pairs.items())
    assert {int(tokens[step]): answer for step, answer in answers.items()} == pairs
    assert all(step >= start and step % 2 == 0 for step in answers)


@pytest.mark.parametrize("fill", [True, False])
def test_every_key_is_asked_for_once(fill, raw_dir, cache_dir):
    options = {**SMALL, "vocabulary": 64, "length": 32, "n_pairs": 4, "random_fill": fill}
    data = dataset_from_options("mqar", options).load(raw_dir, cache_dir)
    for words, labels in texts(data, "train"):
        tokens = np.array(words, int)
        answers = {int(step): 32 + int(labels[step]) for step in np.flatnonzero(labels >= 0)}
        check_mqar(tokens, answers, 64, 4)
        others = np.delete(tokens[8:], [step - 8 for step in answers])
        assert others.any() == fill


@pytest.mark.parametrize("case", ["plain", "random", "wide"])
def test_recorded_rows_of_queries_are_read_alike(case):
    name = f"gen_mqar/{case}"
    found, options = cases.arrays(name), cases.options(name)
    for tokens, labels in zip(found["inputs"], found["labels"], strict=True):
        answers = {int(step): int(labels[step]) for step in np.flatnonzero(labels != IGNORED)}
        check_mqar(tokens, answers, options["vocab_size"], options["num_kv_pairs"])


def test_gaps_follow_a_power_law():
    n = 20_000
    gaps = Mqar(power=0.5)._gaps(n, Stream(0, 0))
    assert all(len({*row}) == 4 for row in gaps[:100].tolist())
    law = np.arange(1, 29) ** -0.5
    expected, found = law / law.sum(), np.bincount(gaps[:, 0], minlength=28) / n
    assert np.abs(found - expected).max() < 4 * np.sqrt(expected[0] / n)


def test_short_rows_to_train_on_are_drawn_more_often():
    n, language = 20_000, Parity(min_length=2, length_power=1.0)
    found = np.bincount(language.lengths("train", n, Stream(0, 0)), minlength=41) / n
    law = np.array([0, 0, *1 / np.arange(2, 41)])
    expected = law / law.sum()
    assert np.abs(found - expected).max() < 4 * np.sqrt(expected[2] / n)
    assert language.lengths("val", n, Stream(0, 0)).mean() == pytest.approx(148, abs=2)


def test_symbols_are_repeated_in_order(raw_dir, cache_dir):
    data = dataset_from_options("selective-copying", SMALL).load(raw_dir, cache_dir)
    places = set()
    for words, labels in texts(data, "train"):
        assert words[256:] == ["<go>"] * 16
        symbols = [word for word in words if word[0] != "<"]
        assert symbols == list(map(str, labels[256:]))
        assert (labels[:256] == NO_TARGET).all()
        places |= {step for step, word in enumerate(words) if word[0] != "<"}
    assert len(places) > 240


def test_rows_are_known(raw_dir, cache_dir):
    # Whatever the machine, the version of NumPy and the sizes of splits.
    for sizes in ({}, {"n_train": 70, "n_val": 30}):
        data = dataset_from_options("parity", {**SMALL, **sizes})
        words, _ = next(texts(data.load(raw_dir, cache_dir), "val"))
        assert "".join(words[:12]) == "bbaaaabbbbbb"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("parity", {"max_length": 2}, "max_length is 2, but must be at least 3"),
        ("parity", {"max_eval_length": 39}, "max_eval_length is 39, but must be at least 40"),
        ("group-a5", {"group": "a4"}, "option 'group' is 'a4', but must be one of a5, s5, z60"),
        ("associative-recall", {"vocabulary": 41}, "vocabulary must be even, got 41"),
        ("mqar", {"length": 14}, "length is 14, but must be at least 16"),
        ("mqar", {"vocabulary": 9, "n_pairs": 1}, "vocabulary must be even, got 9"),
        ("mqar", {"power": 0}, r"power must be in \(0, 1\], got 0"),
        ("selective-copying", {"length": 15}, "length is 15, but must be at least 16"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        dataset_from_options(name, options)
