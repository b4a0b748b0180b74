"""A small task to train on: recall two of three symbols after a short delay."""

import pytest

SMALL_DATA = {
    "n_train": 40,
    "n_val": 20,
    "n_test": 20,
    "n_symbols": 3,
    "pattern_length": 2,
    "delay": 3,
}


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def flags_in(runs_dir, cache_dir):
    """Flags of a run of 3 epochs of 5 updates."""
    return [
        *("--dataset", "copy-classification"),
        *("--data_options", *(f"{name}={value}" for name, value in SMALL_DATA.items())),
        *("--model", "lru", "--n_layers", "1", "--d_model", "4", "--d_hidden", "4"),
        *("--batch_size", "8", "--epochs", "3", "--log_every", "2"),
        *("--runs_dir", str(runs_dir), "--dir_name", str(cache_dir), "--plots", "False"),
    ]


@pytest.fixture
def flags(tmp_path, cache_dir):
    """Those flags, with a folder of its own."""
    return flags_in(tmp_path, cache_dir)


@pytest.fixture(scope="module")
def shared_flags(tmp_path_factory, cache_dir):
    """Those flags, with a folder for all tests of a file."""
    return flags_in(tmp_path_factory.mktemp("shared"), cache_dir)
