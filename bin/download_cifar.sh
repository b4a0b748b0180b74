#!/usr/bin/env bash
# Download CIFAR-10; arguments: --raw_dir DIR, --mirror URL.
exec "$(dirname "${BASH_SOURCE[0]}")/download_all.sh" cifar-classification "$@"
