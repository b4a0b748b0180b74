"""Checks of a split over devices: of the rows of a batch, and of time where a layer allows it."""

from collections.abc import Mapping

from lru.batches import Source
from lru.devices import DATA, SEQ, Devices
from lru.layers import LAYERS
from lru.scan import LINEAR_METHODS, TIME_SPLITTING_METHODS
from lru.tasks import Task


def check_split(devices: Devices, task: Task, sources: Mapping[str, Source], lanes: int) -> None:
    """Refuse what cannot be split over the devices.

    Raises:
        ValueError: naming what cannot be.
    """
    if devices.mesh is not None and lanes > 1:
        raise ValueError(f"n_seeds and lanes must be of one lane on several devices, got {lanes}")
    for name, source in sources.items():
        if source.rows % devices.data:
            flag = "batch_size" if name == "train" else "batch_size, or eval_batch_size,"
            raise ValueError(
                f"{flag} must be a multiple of the {devices.data} parts of {DATA} of the mesh, "
                f"got {source.rows} for {name}"
            )
    if devices.seq == 1:
        return
    model = task.model.model
    able = [name for name, layer in LAYERS.items() if layer.splits_time]
    if model not in able:
        raise ValueError(
            f"mesh must have {SEQ}=1 for model {model}, whose steps need the one before; models "
            f"that can be split in time: {', '.join(able)}; got {devices.seq}"
        )
    method = task.model.options.get("scan_method", "auto")
    if LINEAR_METHODS.get(method) not in TIME_SPLITTING_METHODS and method != "auto":
        raise ValueError(
            f"scan_method must be auto or one that splits time with {SEQ}={devices.seq} of the "
            f"mesh, got {method!r}"
        )
