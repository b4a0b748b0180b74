"""Text in 32 symbols, words of five bits: letters, `, . ? !`, the blank and the newline."""

import re
from string import ascii_lowercase

import numpy as np
from jaxtyping import Int64

ALPHABET = f"{ascii_lowercase},.?! \n"
"""Texts of the words in order."""

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def words_of(text: str) -> Int64[np.ndarray, " n"]:
    """The words of a text of the alphabet."""
    return np.array([ALPHABET.index(symbol) for symbol in text], np.int64)


def in_symbols(text: str) -> str:
    """A text in the alphabet.

    Letters are lower case, `' ; " :` are commas, digits are spelled out, and ends of lines and all
    other signs are blanks.
    """
    text = re.sub("[';\":]", ",", text.lower())
    text = re.sub("[0-9]", lambda digit: _DIGITS[int(digit[0])], text)
    return re.sub("[^a-z,.?! ]", " ", text)
