#!/usr/bin/env bash
# Download the files of every data set that has any; arguments: --raw_dir DIR, --mirror URL, or names of data sets.
# They go to raw_datasets/ of the repository; LRU_PYTHON names an interpreter that has the package, instead of .venv.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${LRU_PYTHON:-}" ]; then
    pushd "$root" >/dev/null
    source bin/_environment.sh .venv .
    popd >/dev/null
fi
[[ " $* " == *" --raw_dir"[\ =]* ]] || set -- "$@" --raw_dir "$root/raw_datasets"
exec "${LRU_PYTHON:-python}" -m lru.dataloaders download "$@"
