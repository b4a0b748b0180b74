"""Options of classes: name, type, default and sentence, read from where a class declares them."""

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, TypeVar

import docstring_parser

T = TypeVar("T")


class Option(NamedTuple):
    """An option of a class.

    Attributes:
        kind: its type.
        default: its value unless it is given.
        sentence: what it is.
    """

    kind: Any
    default: Any
    sentence: str

    @property
    def takes_none(self) -> bool:
        """True if None is one of its values."""
        return type(None) in (self.kind, *typing.get_args(self.kind))


# Docstrings are parsed once a class: a command line asks for the options of all, many times.
@cache
def of_dataclass(owner: type) -> dict[str, Option]:
    """The fields of a dataclass, each with the string that stands below it."""
    sentences: dict[str, str] = {}
    for base in reversed(owner.__mro__[:-1]):
        for part in docstring_parser.parse_from_object(base).params:
            sentences[part.arg_name] = " ".join((part.description or "").split())
    kinds = typing.get_type_hints(owner)
    return {
        part.name: Option(kinds[part.name], _default(part), sentences.get(part.name, ""))
        for part in dataclasses.fields(owner)
    }


@cache
def of_constructor(owner: type, leave_out: tuple[str, ...] = ("rngs",)) -> dict[str, Option]:
    """The keyword-only arguments of a constructor, each with its sentence of the docstring.

    One that has none there has that of the constructor of a base class.
    """
    sentences: dict[str, str] = {}
    for base in reversed(owner.__mro__[:-1]):
        for part in docstring_parser.parse(inspect.getdoc(base.__init__) or "").params:
            sentences[part.arg_name] = " ".join((part.description or "").split())
    return {
        name: Option(part.annotation, part.default, _capitalised(sentences.get(name, "")))
        for name, part in inspect.signature(owner.__init__, eval_str=True).parameters.items()
        if part.kind is part.KEYWORD_ONLY and name not in leave_out
    }


def first_line(owner: Any) -> str:
    """First line of a docstring, which says what a class or module is; empty if there is none."""
    return next(iter((owner.__doc__ or "").strip().splitlines()), "")


def build(owner: str, kind: type[T], values: Mapping[str, Any]) -> T:
    """An instance of a dataclass of options.

    Args:
        owner: of the options, for messages, as "task 'classification'".
        kind: the dataclass.
        values: of some of its fields; the others keep their defaults.

    Raises:
        ValueError: if it has no such field, or refuses a value.
    """
    known = [part.name for part in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    for name in values:
        if name not in known:
            raise ValueError(
                f"{name} is not an option of {owner}, which has: {', '.join(known) or 'none'}"
            )
    return kind(**values)


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _default(part: dataclasses.Field) -> Any:
    if part.default_factory is not dataclasses.MISSING:
        return part.default_factory()
    return part.default
