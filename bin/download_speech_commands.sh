#!/usr/bin/env bash
# Download Speech Commands; arguments: --raw_dir DIR, --mirror URL.
exec "$(dirname "${BASH_SOURCE[0]}")/download_all.sh" speech-commands "$@"
