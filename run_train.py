"""Train, resume or evaluate one model on one data set: `python run_train.py --help`."""

import sys

from lru.commands import call

if __name__ == "__main__":
    sys.exit(call("train", sys.argv[1:], "run_train.py"))
