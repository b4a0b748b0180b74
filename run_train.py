"""Train, resume or evaluate one model on one data set: `python run_train.py --help`."""

import sys

from lru.cli import main

if __name__ == "__main__":
    sys.exit(main())
