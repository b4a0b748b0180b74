"""An exported model: a folder with two programs, an initial state and a card that describes them.

Importing this brings in neither Flax nor any code of a model: jax and numpy do.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

FORMAT = 1
"""Raised whenever folders are laid out in another way."""

CARD = "card.json"
WHOLE, STEP, STATE = "whole.jax_export", "step.jax_export", "initial_state.npz"


@dataclass(frozen=True)
class ExportedModel:
    """A model without its code.

    Attributes:
        card: what it is, and the shapes and types of what it takes and gives.
        whole: (inputs [B, T, ...], lengths [B]) -> outputs.
    """

    card: dict[str, Any]
    whole: Callable[[Any, Any], jax.Array]
    _step: Callable[[Any, list[jax.Array]], tuple[jax.Array, list[jax.Array]]] | None
    _start: list[np.ndarray]

    def initial_state(self, batch_size: int) -> list[jax.Array]:
        """The state before the first step, for `batch_size` rows.

        Raises:
            ValueError: if the model has no step mode.
        """
        self._require_step()
        rows = [jnp.repeat(row, batch_size, axis=0) for row in self._start]
        # Committed to their device, as what a program returns is: else it would be compiled twice.
        return [jax.device_put(row, row.sharding) for row in rows]

    def step(self, inputs_t: Any, state: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        """Take in one step [B, ...]; the outputs up to it, and the state after it.

        Raises:
            ValueError: if the model has no step mode.
        """
        return self._require_step()(inputs_t, state)

    def _require_step(self) -> Callable:
        if self._step is None:
            raise ValueError(f"this model was exported without a step: {self.card['no_step']}")
        return self._step


def load(folder: str | os.PathLike[str]) -> ExportedModel:
    """Read what `lru.export.writer` wrote; each program is compiled once for every shape.

    Raises:
        FileNotFoundError: if there is no exported model.
        ValueError: if a file is not the one that the card describes.
    """
    folder = Path(folder)
    if not (folder / CARD).is_file():
        raise FileNotFoundError(f"there is no exported model in {folder}: it has no {CARD}")
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    if card["format"] != FORMAT:
        raise ValueError(f"{folder} has format {card['format']}, but only {FORMAT} can be read")
    content = {name: _checked(folder / name, digest) for name, digest in card["sha256"].items()}
    start: list[np.ndarray] = []
    if STATE in content:
        with np.load(io.BytesIO(content[STATE]), allow_pickle=False) as arrays:
            start = list(arrays.values())
    step = _program(content[STEP]) if STEP in content else None
    return ExportedModel(card, _program(content[WHOLE]), step, start)


def _checked(path: Path, digest: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{path} does not have the sha256 of {CARD}: export the model again")
    return content


def _program(content: bytes) -> Callable:
    return jax.jit(jax.export.deserialize(bytearray(content)).call)
