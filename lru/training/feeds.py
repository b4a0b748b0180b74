"""What delivers the batches of a run's splits: rows of examples, or streams of a text."""

from typing import cast

from lru.dataloaders import Prepared, Ragged
from lru.dataloaders.sets.corpora import boundary
from lru.dataloading import Batches
from lru.device_data import Feed, on_device_by_default
from lru.streams import StreamFeed, Streams
from lru.training.config import Config


def make_feeds(config: Config, data: Prepared) -> tuple[bool, dict[str, Feed | StreamFeed]]:
    """Whether the splits live on the device, and what delivers the batches of each.

    Raises:
        ValueError: if a text is to live there, or other data is to have the lengths of texts.
    """
    splits = data.splits
    on_device = config.run.on_device
    if data.card.kind == "text":
        if on_device:
            raise ValueError(
                f"on_device must be False for {data.card.name}, whose batches are small; got True"
            )
        start = boundary(data.card.vocabulary or [])
        seeds = {"train": config.train.jax_seed}
        return False, {
            name: StreamFeed(Streams(cast(Ragged, split), config.data, start, seed=seeds.get(name)))
            for name, split in splits.items()
        }
    if config.data.variable_bptt:
        raise ValueError(
            f"variable_bptt must be False for {data.card.name}, which is no text; got True"
        )
    if on_device is None:
        on_device = on_device_by_default(splits)
    train = Batches(data.train, config.data, seed=config.train.jax_seed)
    # Evaluation compiles no other lengths than training does.
    held_out = {
        name: Batches(split, config.data, bounds=train.bounds)
        for name, split in splits.items()
        if name != "train"
    }
    batches = {"train": train, **held_out}
    return on_device, {name: Feed(batches[name], on_device=on_device) for name in splits}
