"""Width of a network by the number of its parameters, so that models are compared at equal size."""

import dataclasses
from collections.abc import Callable
from functools import cache

from flax import nnx

from lru.config import Config
from lru.devices import join_processes
from lru.experiment import load_data, make_task
from lru.models import NETWORKS
from lru.models.sizes import sizes

WIDTHS = ("d_hidden", "d_model")
"""Options that may be chosen, in this order: the first on which the number depends."""

MOST_SKIPPED = 512
"""Widths in a row that a layer may refuse, such as those that its heads do not divide."""

LARGEST = 2**20
"""Widths are not tried beyond."""


def matched(config: Config, n_parameters: int) -> tuple[Config, str]:
    """The configuration with the width that brings its model nearest to a number of parameters.

    Args:
        config: of the run; its data is prepared if need be.
        n_parameters: wanted.

    Returns:
        The configuration, and the option that was chosen: d_hidden, or d_model where the model has
        as many parameters with any d_hidden.

    Raises:
        ValueError: if the model is no stack of layers, or has more parameters with the least width.
    """
    if config.model.model in NETWORKS:
        raise ValueError(
            f"match_params chooses the width of recurrent layers, but model {config.model.model!r} "
            "has none"
        )
    join_processes(config.run.coordinator, config.run.num_processes, config.run.process_id)
    data = load_data(config)

    def with_width(name: str, width: int) -> Config:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **{name: width}))

    for name in WIDTHS:

        @cache
        def count(width: int, name: str = name) -> int:
            task = make_task(with_width(name, width), data)
            return sizes(lambda: task.build_model(nnx.Rngs(0))).n_parameters

        width = nearest(count, n_parameters)
        if width is not None:
            return with_width(name, width), name
    raise ValueError(f"match_params: no width changes the parameters of {config.model.model!r}")


def nearest(count: Callable[[int], int], wanted: int) -> int | None:
    """The width with the number nearest to one that is wanted; None if they are all the same.

    Args:
        count: number for a width, which never falls as the width grows; a ValueError refuses one.
        wanted: number.

    Raises:
        ValueError: if the least width has more than the number wanted.
    """

    def at_least(width: int) -> int:
        for skipped in range(MOST_SKIPPED):
            try:
                count(width + skipped)
            except ValueError:
                if skipped == MOST_SKIPPED - 1:
                    raise
            else:
                return width + skipped
        raise AssertionError

    below = above = at_least(1)
    if count(below) == count(at_least(2 * below + 1)):
        return None
    if count(below) > wanted:
        raise ValueError(
            f"match_params must be at least {count(below)} for this model, got {wanted}"
        )
    while count(above) < wanted and above < LARGEST:
        below, above = above, at_least(2 * above)
    # All widths from `end` on that may be nearer are known.
    end = above
    while end - below > 1:
        middle = (below + end) // 2
        width = at_least(middle)
        if width >= end:
            end = middle
        elif count(width) <= wanted:
            below = width
        else:
            above, end = width, middle
    return min((below, above), key=lambda width: abs(count(width) - wanted))
