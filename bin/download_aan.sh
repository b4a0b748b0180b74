#!/usr/bin/env bash
# Download the retrieval pairs of the ACL Anthology Network; arguments: --raw_dir DIR, --mirror URL.
exec "$(dirname "${BASH_SOURCE[0]}")/download_all.sh" aan-classification "$@"
