"""Settings of all tests; set before JAX and NumPy are imported."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Threads of BLAS and of XLA would fight for the same cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
