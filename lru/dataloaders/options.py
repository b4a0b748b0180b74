"""Options of data sets from text: `("n_train", "96_000", int)` gives 96000."""

import types
import typing
from typing import Any, Literal

_WORDS = {"true": True, "false": False}
_WANTED = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}


def converted(where: str, value: Any, kind: Any) -> Any:
    """`value`, as typed on a command line or read from YAML, as a `kind`.

    Args:
        where: what the option is called, for the error.
        value: text, or a value of the right type already.
        kind: int, float, bool, str, a Literal, or one of them or None.

    Raises:
        ValueError: if it is no `kind`.
    """
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise _error(where, value, "one of " + ", ".join(map(str, choices)))
        return value
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None or value in ("None", "none"):
            return None
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    if isinstance(value, str):
        value = _parsed(where, value, kind)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise _error(where, value, _WANTED[kind])
    return value


def _parsed(where: str, text: str, kind: type) -> Any:
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise _error(where, text, _WANTED[kind]) from None


def _error(where: str, value: Any, wanted: str) -> ValueError:
    return ValueError(f"{where} is {value!r}, but must be {wanted}")
