"""Short trainings whose logs a change that moves no number leaves as they are.

python -m benchmarks.baselines run FOLDER [--checkout DIR] [--only NAME ...]
python -m benchmarks.baselines compare FOLDER FOLDER

`run` starts the commands below with this Python in a checkout, this one or another, and keeps each
`metrics.jsonl` in FOLDER; `compare` tells for two such folders whether all values are the same, and
where the first one differs. Both must have been made on one machine: loops in C++ and XLA's sums
depend on it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

COMMANDS = {
    "quickstart": "--recipe quickstart",
    "mnist-diag-rnn": "--recipe mnist-diag-rnn --max_steps 200",
    "ptb-qrnn": "--recipe ptb-qrnn --max_steps 200",
    "imdb-lru": "--recipe imdb-lru --max_steps 200",
    "retrieval": "--dataset aan-classification --data_options max_length=512 --model lru "
    "--n_layers 2 --d_model 32 --d_hidden 32 --batch_size 8 --max_steps 50",
}
ALWAYS = "--log_every 25 --plots False"


def run(folder: Path, checkout: Path, raw_dir: Path, names: list[str]) -> None:
    """Run the commands in a checkout and keep their logs.

    Raises:
        CalledProcessError: if a command fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with tempfile.TemporaryDirectory() as runs:
            folders = f"--runs_dir {runs} --name {name} --dir_name {checkout / 'cache_dir'}"
            options = f"{COMMANDS[name]} {ALWAYS} {folders} --raw_dir {raw_dir}"
            subprocess.run(
                [sys.executable, str(checkout / "run_train.py"), *options.split()],
                check=True,
                env=os.environ | {"PYTHONPATH": str(checkout)},
            )
            shutil.copy(Path(runs, name, "metrics.jsonl"), folder / f"{name}.jsonl")


def difference(one: Path, other: Path) -> str | None:
    """The first value in which two logs differ; None if there is none."""
    if not other.exists():
        return f"there is no {other}"
    logs = [[json.loads(line) for line in path.read_text().splitlines()] for path in (one, other)]
    if len(logs[0]) != len(logs[1]):
        return f"{len(logs[0])} and {len(logs[1])} lines"
    for mine, theirs in zip(*logs, strict=True):
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            if mine.get(key) != theirs.get(key):
                return f"step {mine['step']}: {key} is {mine.get(key)} and {theirs.get(key)}"
    return None


def main() -> int:
    """Run or compare; 1 if something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run")
    verb.add_argument("folder", type=Path)
    verb.add_argument("--checkout", type=Path, default=Path(__file__).parent.parent)
    verb.add_argument("--raw_dir", type=Path, default=Path("raw_datasets"))
    verb.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    verb = verbs.add_parser("compare")
    verb.add_argument("folders", nargs=2, type=Path)
    options = parser.parse_args()
    if options.verb == "run":
        checkout, raw_dir = options.checkout.resolve(), options.raw_dir.resolve()
        run(options.folder, checkout, raw_dir, options.only)
        return 0
    one, other = options.folders
    found = {path.stem: difference(path, other / path.name) for path in sorted(one.glob("*.jsonl"))}
    for name, what in found.items():
        print(f"{name}: {what or 'the same, value for value'}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
