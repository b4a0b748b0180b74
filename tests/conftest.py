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

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def write_idx():
    """Writes a few digits in the layout of the official files."""

    def write(raw_dir):
        random = np.random.default_rng(0)
        folder = raw_dir / "MNIST" / "raw"
        folder.mkdir(parents=True)
        for part, count in (("train", 24), ("t10k", 8)):
            images = random.integers(256, size=(count, 28, 28), dtype=np.uint8)
            header = np.array([0x803, count, 28, 28], ">i4").tobytes()
            (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
            labels = (np.arange(count) % 10).astype(np.uint8)
            header = np.array([0x801, count], ">i4").tobytes()
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())

    return write
