"""Exported models: `load` reads them with jax and numpy alone, `lru.export.writer` writes them."""

from lru.export.artifact import ExportedModel, load

__all__ = ["ExportedModel", "load"]
