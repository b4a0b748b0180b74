"""Looking at runs and models: states and their edits, read-outs, spectra and plots."""

from lru.analysis.edits import ablate, patch, run_edited
from lru.analysis.states import flatten_states, recurrent_layers

__all__ = ["ablate", "flatten_states", "patch", "recurrent_layers", "run_edited"]
