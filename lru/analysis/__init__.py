"""Looking at runs and models: states and their edits, read-outs, spectra and plots."""

from lru.analysis.edits import ablate, patch, run_edited
from lru.analysis.readouts import Probe, probe
from lru.analysis.states import flatten_states, recurrent_layers

__all__ = [
    "Probe",
    "ablate",
    "flatten_states",
    "patch",
    "probe",
    "recurrent_layers",
    "run_edited",
]
