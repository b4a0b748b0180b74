"""Points of a sweep that train as lanes of one run."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from lru.config import Config
from lru.launch.sweep_files import Point
from lru.models import MODELS
from lru.training.lanes import lane_options


class Candidate(NamedTuple):
    """A point with the configuration that it makes with all other flags."""

    point: Point
    config: Config


def joined(candidates: Sequence[Candidate], varied: Sequence[str]) -> list[Candidate | Point]:
    """Candidates as they are, or in place of several a point of a run whose lanes they are.

    Lanes are the points of a group that differ in nothing but options that lanes may differ in, if
    they are all combinations of their values; and in seeds that follow each other, if the order of
    the data has a seed of its own. So each has the result that it has alone, to rounding.

    Args:
        candidates: all points of a sweep.
        varied: the flags in which they differ.
    """
    groups: dict[str, list[Candidate]] = {}
    for each in candidates:
        own = _own(each, varied)
        rest = {flag: value for flag, value in each.point.items() if flag not in own}
        groups.setdefault(str(rest), []).append(each)
    found: list[Candidate | Point] = []
    for group in groups.values():
        point = _as_lanes(group, _own(group[0], varied))
        found += group if point is None else [point]
    return found


def _own(candidate: Candidate, varied: Sequence[str]) -> list[str]:
    """The flags in which a point may differ from others of its run."""
    train = candidate.config.train
    if train.n_seeds > 1 or train.lanes:
        return []
    of_draw = MODELS[candidate.config.model.model].of_draw
    options = lane_options(candidate.config.make_optimizer(), of_draw)
    seeds = [] if train.data_seed is None else ["jax_seed"]
    return [flag for flag in varied if flag in (*options, *seeds)]


def _as_lanes(group: Sequence[Candidate], own: Sequence[str]) -> Point | None:
    """The point of a run with these lanes; None if they are no lanes of one."""
    lists: dict[str, list[Any]] = {
        flag: list(dict.fromkeys(each.point[flag] for each in group)) for flag in own
    }
    points = {tuple(each.point[flag] for flag in own) for each in group}
    seeds = sorted(lists.pop("jax_seed", [0]))
    count = len(seeds) * math.prod(map(len, lists.values()))
    if len(group) == 1 or len(points) < count or seeds != list(range(seeds[0], seeds[-1] + 1)):
        return None
    point = {flag: value for flag, value in group[0].point.items() if flag not in own}
    if "jax_seed" in own:
        point |= {"jax_seed": seeds[0], "n_seeds": len(seeds)}
    if lists:
        point["lanes"] = [f"{flag}={','.join(map(str, each))}" for flag, each in lists.items()]
    return point
