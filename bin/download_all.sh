#!/usr/bin/env bash
# Download the files of every data set that has any; arguments: --raw_dir DIR, --mirror URL, or names of data sets.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -n "${PYTHON:-}" ] || source bin/_environment.sh .venv .
exec "${PYTHON:-python}" -m lru.dataloaders download "$@"
