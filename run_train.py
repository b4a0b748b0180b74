"""Train, resume or evaluate one model on one data set: `python run_train.py --help`."""

import sys

from lru.commands import run_train

if __name__ == "__main__":
    sys.exit(run_train())
