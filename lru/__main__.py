"""Verbs for data, models and runs: `python -m lru VERB --help`."""

from lru.commands import main, run_process


def program() -> None:
    """Run the verb of the command line, and end this process."""
    run_process(main)


if __name__ == "__main__":
    program()
