"""Pickles of plain data, and of nothing else: no code runs, whatever the file says."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

_RECONSTRUCT = np.empty(0).__reduce__()[0]
"""The maker that a pickled array names."""


def _bytes(text: str, encoding: str) -> bytes:
    """The function that Python 3 writes for bytes in the protocol of Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it has bytes in {encoding!r} instead of latin1")
    return text.encode("latin1")


_ALLOWED = {
    ("_codecs", "encode"): _bytes,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        """The maker of arrays, for the names that arrays need; an error for all others."""
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module_name}.{global_name}, which plain data does not need"
            ) from None


def load_plain(path: Path) -> Any:
    """The object in a pickle of built-in containers, numbers, bytes and NumPy arrays.

    Text of Python 2 comes as bytes.

    Raises:
        ValueError: if the file is damaged or asks for anything else.
    """
    with path.open("rb") as file:
        try:
            return _PlainUnpickler(file, encoding="bytes").load()
        # A damaged pickle can raise nearly anything.
        except Exception as error:
            raise ValueError(
                f"{path} is no pickle of plain data ({error}); it was not read"
            ) from error
