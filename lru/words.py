"""Words of a command line before it is parsed: prefixes, booleans, flags that are repeated."""

import argparse
import itertools
from collections.abc import Iterable, Mapping, Sequence

ALIASES = {
    "warmup": "warmup_end",
    "block_length": "chunk_length",
    "learning_rate": "lr_base",
}
"""Prefixes in published commands, which stay what they are whatever flags come; former names."""

BOOLEANS = {
    "true": "True",
    "t": "True",
    "yes": "True",
    "y": "True",
    "1": "True",
    "false": "False",
    "f": "False",
    "no": "False",
    "n": "False",
    "0": "False",
    "none": "None",
}

WHOLE = ("reset", "trust_plugins")
"""Flags that are not abbreviated: nobody is to get them by chance."""

LISTS = ("data_options", "lanes", "stop_signals")
"""Flags that take several words, and may be repeated."""


class UsageError(ValueError):
    """A command line that cannot be understood."""


def expand(arguments: Sequence[str], flags: Mapping[str, bool]) -> list[str]:
    """Write unambiguous prefixes of flags out, and give bare boolean flags the value True.

    Words of a flag in `LISTS` that is repeated are joined, and those of `--plugins` are one.

    Args:
        arguments: as typed.
        flags: whether each flag is a boolean, by name.

    Raises:
        UsageError: if a prefix fits several flags.
    """
    out: list[str] = []
    boolean_before = False
    for i, argument in enumerate(arguments):
        if not argument.startswith("--"):
            out.append(_boolean(argument) if boolean_before else argument)
            boolean_before = False
            continue
        typed, equals, value = argument.partition("=")
        name = _complete(typed.removeprefix("--").replace("-", "_"), flags)
        boolean_before = flags.get(name, False)
        out.append(f"--{name}")
        following = arguments[i + 1] if i + 1 < len(arguments) else ""
        if equals:
            out.append(_boolean(value) if boolean_before else value)
            boolean_before = False
        elif boolean_before and following.lower() not in BOOLEANS:
            out.append("True")
            boolean_before = False
    for name in LISTS:
        out = _joined(out, f"--{name}")
    return plugins_as_one(out)


def plugins_as_one(words: Sequence[str]) -> list[str]:
    """The words, with all values of `--plugins` as one, separated by commas."""
    out = _joined(list(words), "--plugins")
    for start, end in spans(out):
        if out[start] == "--plugins" and end > start + 1:
            out[start + 1 : end] = [",".join(out[start + 1 : end])]
            break
    return out


def _joined(words: list[str], flag: str) -> list[str]:
    """All values of a flag behind its first occurrence."""
    if words.count(flag) < 2:
        return words
    others: list[str] = []
    values: list[str] = []
    for start, end in spans(words):
        if words[start] == flag:
            values += words[start + 1 : end]
        else:
            others += words[start:end]
    return [*others, flag, *values]


def spans(words: Sequence[str]) -> list[tuple[int, int]]:
    """Bounds of each flag with its values; what stands before the first flag is one of them."""
    starts = [i for i, word in enumerate(words) if word.startswith("--") or i == 0]
    return list(itertools.pairwise([*starts, len(words)]))


def _boolean(word: str) -> str:
    return BOOLEANS.get(word.lower(), word)


def _complete(typed: str, flags: Iterable[str]) -> str:
    """The flag that `typed` is or abbreviates; itself if there is none: the parser refuses it."""
    fitting = [
        flag for flag in flags if flag.startswith(typed) and (flag == typed or flag not in WHOLE)
    ]
    if typed in ALIASES and typed not in fitting:
        return ALIASES[typed]
    if typed in fitting or not fitting:
        return typed
    if len(fitting) > 1:
        raise UsageError(f"--{typed} is short for several flags: {', '.join(sorted(fitting))}")
    return fitting[0]


def typed_values(arguments: Sequence[str], *names: str) -> dict[str, str | None]:
    """The last values of some flags on a command line, which decide about others on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", nargs="?")
    return vars(parser.parse_known_args(list(arguments))[0])


def is_true(words: Sequence[str], name: str) -> bool:
    """True if a flag is set on an expanded command line."""
    return typed_values(words, name)[name] == "True"
