"""Train, resume or evaluate one model on one data set: `python run_train.py --help`."""

from lru.commands import run_process, run_train

if __name__ == "__main__":
    run_process(run_train)
