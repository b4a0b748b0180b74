"""Verbs for data, models and runs: `python -m lru VERB --help`."""

import sys

from lru.commands import main

if __name__ == "__main__":
    sys.exit(main())
