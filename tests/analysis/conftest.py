"""Figures as they are before they are saved."""

import pytest

from lru.analysis import comparisons, plots


@pytest.fixture
def figure(monkeypatch):
    """A function that runs a plot and gives the figure that it would have saved."""
    saved = []
    for module in (plots, comparisons):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: saved.append(figure))

    def run(plot, *args):
        plot(*args, "unused.png")
        return saved.pop()

    return run
