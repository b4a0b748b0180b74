"""Recurrent sequence models that train in parallel over time, in JAX and Flax NNX.

`lru.layers` has the recurrences as layers, `lru.scan` as functions of arrays. `fit` trains a model
on a data set, `load_model` opens a trained one, `analyse` looks at its states, and the command
`lru` does all of it.
"""

from typing import TYPE_CHECKING, Any

from lru.version import __version__

if TYPE_CHECKING:
    from lru.analysis_runs import analyse
    from lru.config import Config
    from lru.experiment import fit, load_model

__all__ = ["Config", "__version__", "analyse", "fit", "load_model"]


def __getattr__(name: str) -> Any:
    """Import what is used from Python when it is asked for: a layer alone needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = {"analyse": "lru.analysis_runs", "Config": "lru.config"}.get(name, "lru.experiment")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
