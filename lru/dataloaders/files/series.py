"""Files of labelled time series: `.ts`, as in the UEA and UCR archives and aeon, and `.arff`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

CHANNELS, STEPS = ":", ","
"""Separators of a row of a `.ts` file: of its channels, and of the steps of one."""

FLAGS = ("true", "false")
ROW = re.compile(r"""\s*(['"])(?P<channels>.*)\1\s*,\s*(?P<label>.*)""")
"""A row of an `.arff` file of several channels, which stand in one quoted field."""


class Series(NamedTuple):
    """One row.

    Attributes:
        values: of its steps and channels, not a number where one is missing.
        label: its class.
    """

    values: Float32[np.ndarray, "T F"]
    label: str


def read_series(path: Path) -> list[Series]:
    """The rows of a file, all of as many channels.

    Raises:
        ValueError: naming the file, the line and what is wrong with it.
    """
    form = {".ts": _read_ts, ".arff": _read_arff}.get(path.suffix)
    if form is None:
        raise ValueError(f"{path} must be a .ts or an .arff file")
    rows: list[Series] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        numbered = ((n, line.strip()) for n, line in enumerate(lines, 1))
        # "%#" and "#" begin comments of `.ts`, "%" of both.
        told = ((n, line) for n, line in numbered if line and line[0] not in "#%")
        for number, channels, label in form(path, told):
            values = _values(f"{path}, line {number}", channels)
            if rows and values.shape[1] != rows[0].values.shape[1]:
                raise ValueError(
                    f"{path}, line {number}: {values.shape[1]} channels, but the rows before have "
                    f"{rows[0].values.shape[1]}"
                )
            rows.append(Series(values, label))
    if not rows:
        raise ValueError(f"{path} has no rows after @data")
    return rows


Rows = Iterator[tuple[int, list[str], str]]
"""Number of the line, text of each channel, and label."""


def _read_ts(path: Path, lines: Iterator[tuple[int, str]]) -> Rows:
    header: dict[str, str] = {}
    for number, line in lines:
        key, _, value = line.partition(" ")
        if not key.startswith("@"):
            raise ValueError(f"{path}, line {number}: @data must stand before {line[:40]!r}")
        if key.lower() == "@data":
            break
        header[key[1:].lower()] = value.strip()
    where = f"{path}, header"
    for key in ("timestamps", "missing", "univariate", "equallength"):
        if header.get(key, "false").lower() not in FLAGS:
            raise ValueError(f"{where}: @{key} must be true or false, got {header[key]!r}")
    if header.get("timestamps", "false").lower() == "true":
        raise ValueError(f"{where}: series with time stamps (@timeStamps true) are not read")
    labelled, *classes = header.get("classlabel", "false").split()
    if labelled.lower() != "true" or not classes:
        raise ValueError(f"{where}: @classLabel must be true with the names of the classes")
    expected = header.get("dimensions", header.get("dimension", ""))
    if expected and not expected.isdecimal():
        raise ValueError(f"{where}: @dimensions must be a number, got {expected!r}")
    for number, line in lines:
        *channels, label = line.split(CHANNELS)
        if label.strip() not in classes:
            raise ValueError(
                f"{path}, line {number}: class {label.strip()[:40]!r} is not one of "
                f"{', '.join(classes)}"
            )
        if expected and len(channels) != int(expected):
            raise ValueError(
                f"{path}, line {number}: {len(channels)} channels, but @dimensions is {expected}"
            )
        yield number, channels, label.strip()


def _read_arff(path: Path, lines: Iterator[tuple[int, str]]) -> Rows:
    classes: list[str] = []
    relational = False
    for _, line in lines:
        key = line.split()[0].lower()
        if key == "@data":
            break
        if key == "@attribute":
            relational |= line.lower().endswith(" relational")
            if found := re.search(r"\{(.*)\}", line):
                classes = [name.strip(" '\"") for name in found[1].split(",")]
    if not classes:
        raise ValueError(f"{path}, header: no @attribute names the classes in braces")
    for number, line in lines:
        if relational:
            found = ROW.fullmatch(line)
            if found is None:
                raise ValueError(f"{path}, line {number}: no quoted channels before the class")
            channels, label = found["channels"].split(r"\n"), found["label"]
        else:
            steps, _, label = line.rpartition(STEPS)
            channels = [steps]
        label = label.strip(" '\"")
        if label not in classes:
            raise ValueError(
                f"{path}, line {number}: class {label[:40]!r} is not one of {', '.join(classes)}"
            )
        yield number, channels, label


def _values(where: str, channels: list[str]) -> Float32[np.ndarray, "T F"]:
    """Values of a row, "?" and "NaN" being missing ones; steps that all channels pad go."""
    parsed = []
    for channel, text in enumerate(channels):
        words = text.replace("?", "nan").split(STEPS)
        try:
            parsed.append(np.array(words, np.float32))
        except ValueError:
            wrong = next(word for word in words if not _is_number(word))
            raise ValueError(
                f"{where}: {wrong.strip()[:40]!r} in channel {channel} is not a number"
            ) from None
    steps = {len(values) for values in parsed}
    if len(steps) > 1:
        counts = ", ".join(str(len(values)) for values in parsed)
        raise ValueError(f"{where}: channels must have the same number of steps, got {counts}")
    values = np.stack(parsed, axis=1) if parsed else np.zeros((0, 0), np.float32)
    # In `.arff` and in padded archives a shorter row ends in missing values.
    there = np.flatnonzero(~np.isnan(values).all(axis=1))
    if not len(there):
        raise ValueError(f"{where}: the row has no values")
    return values[: there[-1] + 1]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
