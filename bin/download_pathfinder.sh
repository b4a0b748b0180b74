#!/usr/bin/env bash
# Download Pathfinder at all sizes; arguments: --raw_dir DIR, --mirror URL.
exec "$(dirname "${BASH_SOURCE[0]}")/download_all.sh" pathfinder-classification pathfinder64-classification \
    pathfinder128-classification pathfinder256-classification "$@"
