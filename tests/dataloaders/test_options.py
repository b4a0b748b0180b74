from typing import Literal

import pytest

from lru.dataloaders import DATASETS, dataset_from_options
from lru.dataloaders.options import converted
from lru.dataloaders.sets.copying import Copy
from lru.registry import UnknownNameError


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("3", int, 3),
        ("96_000", int, 96_000),
        (3, int, 3),
        ("0.5", float, 0.5),
        (1, float, 1.0),
        ("true", bool, True),
        ("False", bool, False),
        (True, bool, True),
        ("word", str, "word"),
        ("a", Literal["a", "b"], "a"),
        ("none", int | None, None),
        (None, int | None, None),
        ("4", int | None, 4),
    ],
)
def test_values_become_the_options_type(value, kind, expected):
    result = converted("option", value, kind)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "wanted"),
    [
        ("3.5", int, "a whole number"),
        (3.5, int, "a whole number"),
        (True, int, "a whole number"),
        ("many", float, "a number"),
        ("yes", bool, "True or False"),
        (1, bool, "True or False"),
        (3, str, "text"),
        ("c", Literal["a", "b"], "one of a, b"),
    ],
)
def test_other_values_are_refused(value, kind, wanted):
    with pytest.raises(ValueError, match=f"option is {value!r}, but must be {wanted}"):
        converted("option", value, kind)


def test_options_of_a_data_set_may_be_text():
    assert dataset_from_options("copy-classification", {"n_train": "7", "delay": 2}) == Copy(
        n_train=7, delay=2
    )


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_defaults_for_all_options(name):
    assert type(dataset_from_options(name, None)).name == name


def test_an_unknown_option_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no option 'length'; known: n_train, n_val, n_test"):
        dataset_from_options("copy-classification", {"length": 3})


def test_an_unknown_data_set_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"known: .*copy-classification"):
        dataset_from_options("copy", None)


def test_a_value_out_of_range_names_the_option():
    with pytest.raises(ValueError, match="copy-classification: delay is 0, but must be at least 1"):
        dataset_from_options("copy-classification", {"delay": "0"})
