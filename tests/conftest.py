"""Settings of all tests; set before JAX and NumPy are imported."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What splits over devices needs several; everything else stays on the first.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# Threads of BLAS and of XLA would fight for the same cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Many tests run the same small programs: each is compiled once for all of them.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
