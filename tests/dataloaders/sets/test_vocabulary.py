import numpy as np
import pytest

from lru.dataloaders.sets.vocabulary import SPECIALS, CharacterCoder, Coder, WordCoder

TEXTS = ["abba", "ab é", "b€"]


def frozen(coder: Coder, texts: list[str], min_frequency: int) -> Coder:
    for text in texts:
        coder.count([text])
    coder.freeze(min_frequency)
    return coder


def decoded(coder: Coder, texts: list[str]) -> list[list[str]]:
    values, lengths = coder.encode(texts)
    assert values.dtype == coder.dtype
    rows = np.split(values, np.cumsum(lengths)[:-1])
    return [[coder.vocabulary[token] for token in row] for row in rows]


def test_characters_come_by_falling_frequency_and_rare_ones_are_unknown():
    coder = frozen(CharacterCoder(10), TEXTS, 2)
    assert coder.vocabulary == (*SPECIALS, "b", "a")
    assert decoded(coder, ["ba€", ""]) == [["b", "a", "<unk>", "<eos>"], ["<eos>"]]
    assert frozen(CharacterCoder(10), TEXTS, 1).vocabulary[3:] == ("b", "a", " ", "é", "€")


def test_bytes_are_those_of_utf_8():
    coder = frozen(CharacterCoder(10, as_bytes=True), TEXTS, 1)
    assert decoded(coder, ["aé"]) == [["a", "<0xc3>", "<0xa9>", "<eos>"]]
    assert decoded(coder, ["ü"]) == [["<0xc3>", "<unk>", "<eos>"]]


@pytest.mark.parametrize("coder", [CharacterCoder(3), CharacterCoder(3, as_bytes=True)])
def test_what_is_too_long_is_cut_and_not_counted(coder):
    frozen(coder, ["abc", "bbz"], 1)
    assert decoded(coder, ["abz"]) == [["a", "b", "<eos>"]]
    assert coder.vocabulary == (*SPECIALS, "b", "a")


def test_words_are_in_lower_case_and_signs_stand_alone():
    coder = frozen(WordCoder(9), ["Don't stop<br /><br />now, DON'T!", "stop stop at 10/10"], 1)
    assert coder.vocabulary[3:6] == ("stop", "10", "don't")
    (row,) = decoded(coder, ["Don't stop<br/>_now_, 10/10"])
    assert row == ["don't", "stop", "now", ",", "10", "/", "10", "<eos>"]
    assert frozen(WordCoder(9), ["b a b a c"], 2).vocabulary[3:] == ("a", "b")


@pytest.mark.parametrize(("characters", "dtype"), [(253, np.uint8), (254, np.uint16)])
def test_ids_take_the_smallest_type_that_holds_them(characters, dtype):
    text = "".join(map(chr, range(1000, 1000 + characters)))
    coder = frozen(CharacterCoder(300), [text], 1)
    assert coder.dtype == dtype
    assert "".join(decoded(coder, [text])[0][:-1]) == text


def test_no_texts_have_no_ids():
    coder = frozen(CharacterCoder(9), TEXTS, 1)
    values, lengths = coder.encode([])
    assert (len(values), len(lengths)) == (0, 0)
