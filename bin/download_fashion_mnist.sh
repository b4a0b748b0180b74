#!/usr/bin/env bash
# Download Fashion-MNIST; arguments: --raw_dir DIR, --mirror URL.
exec "$(dirname "${BASH_SOURCE[0]}")/download_all.sh" fashion-mnist-classification "$@"
