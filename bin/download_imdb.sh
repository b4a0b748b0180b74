#!/usr/bin/env bash
# Download the IMDb reviews; arguments: --raw_dir DIR, --mirror URL.
exec "$(dirname "${BASH_SOURCE[0]}")/download_all.sh" imdb-classification "$@"
