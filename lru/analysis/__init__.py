"""Looking at runs and models: states as vectors, spectra and plots."""

from lru.analysis.states import flatten_states

__all__ = ["flatten_states"]
