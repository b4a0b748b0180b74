#!/usr/bin/env bash
# Download the tasks of the Long Range Arena; arguments: --raw_dir DIR, --mirror URL.
exec "$(dirname "${BASH_SOURCE[0]}")/download_all.sh" listops-classification imdb-classification \
    aan-classification lra-cifar-classification pathfinder-classification pathx-classification "$@"
