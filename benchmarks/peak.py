"""The processor's rate of multiply-adds, by benchmarks/peak.cc.

python -m benchmarks.peak [--repetitions 5]

Results go to benchmarks/results/peak.json: GFLOP/s of every core while all are busy.
"""

import argparse
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from benchmarks.provenance import provenance, save

HERE = Path(__file__).parent


def main() -> None:
    """Compile, run, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    flags = ["-O3", "-march=native", "-pthread"]
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/peak"
        subprocess.run([*compiler, *flags, str(HERE / "peak.cc"), "-o", program], check=True)
        runs = [
            subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
            for _ in range(options.repetitions)
        ]
    rates = [[float(rate) for rate in run] for run in runs]
    print(*rates, sep="\n")
    results = {"provenance": provenance(), "flags": flags, "gigaflops_of_cores": rates}
    save(HERE / "results" / "peak.json", results)


if __name__ == "__main__":
    main()
