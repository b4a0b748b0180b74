"""Pickles of plain data, and of nothing else: no code runs, whatever the file says."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

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


class RestrictedUnpickler(pickle.Unpickler):
    """Reader of a pickle that may name a few things and nothing else.

    Args:
        file: opened for reading bytes.
        allowed: what a name stands for, by module and name; safe to be called with anything.
        **options: of `pickle.Unpickler`.
    """

    def __init__(
        self, file: IO[bytes], allowed: Mapping[tuple[str, str], Any], **options: Any
    ) -> None:
        super().__init__(file, **options)
        self._allowed = allowed

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The thing that an allowed name stands for; an error for all others."""
        try:
            return self._allowed[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module_name}.{global_name}, which no file of its kind needs"
            ) from None


def load_plain(path: Path) -> Any:
    """The object in a pickle of built-in containers, numbers, bytes and NumPy arrays.

    Text of Python 2 comes as bytes.

    Raises:
        ValueError: if the file is damaged or asks for anything else.
    """
    with path.open("rb") as file:
        try:
            return RestrictedUnpickler(file, _ALLOWED, encoding="bytes").load()
        # A damaged pickle can raise nearly anything.
        except Exception as error:
            raise ValueError(
                f"{path} is no pickle of plain data ({error}); it was not read"
            ) from error
