#!/usr/bin/env bash
# Download the texts of language modelling; arguments: --raw_dir DIR, --mirror URL.
exec "$(dirname "${BASH_SOURCE[0]}")/download_all.sh" ptb-lm ptb-char-lm wikitext2-lm wikitext103-lm enwik8-lm text8-lm shakespeare-lm "$@"
