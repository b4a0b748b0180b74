"""Checkpoints of the first form of the package, read as those of the second."""

from collections.abc import Mapping
from typing import Any

FORMAT = 2
"""Of what a checkpoint knows beside the state: 1 had the fields of one run's loop."""


def as_second_form(
    arrays: Mapping[str, Any], progress: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a checkpoint by name and its progress, in the second form.

    The first form had one weight for all metrics, one lane, and its loop's fields as progress; its
    optimisers were chains of clipping, rule and mean of the iterates.

    Raises:
        ValueError: if they are of a later form.
    """
    form = progress.get("format", 1)
    if form > FORMAT:
        raise ValueError(f"the checkpoint has format {form}, but only 1 to {FORMAT} can be read")
    if form == FORMAT:
        return dict(arrays), dict(progress)
    named: dict[str, Any] = {}
    for name, array in arrays.items():
        field, _, rest = name.partition("/")
        if field == "sums":
            if rest != "weight":
                named[f"{name}/total"], named[f"{name}/weight"] = array, arrays["sums/weight"]
        elif field == "opt_state" and rest.startswith("2/"):
            named[f"opt_state/average/{rest.removeprefix('2/')}"] = array
        elif field == "opt_state":
            named[f"opt_state/rule/{rest}"] = array
        else:
            named[name] = array
    since, reduced = progress["epochs_since_best"], progress["epochs_since_reduction"]
    best_step, best = progress["best_step"], progress["best"]
    return named, {
        "format": FORMAT,
        "data": progress["data"],
        "evaluated": int(arrays["step"]),
        "lane_method": "single",
        "rate_scales": [progress["lr_scale"]],
        "hooks": {
            "select": {"best_step": [best_step], "best": [best], "since": [since]},
            "plateau": {"since": [reduced]},
            "average": {"losses": [progress.get("losses", [])]},
        },
    }
