"""Types of the recorded cases."""

import jax
import pytest


@pytest.fixture
def x64():
    """Arrays of Python numbers have 64 bits."""
    with jax.enable_x64(True):
        yield
