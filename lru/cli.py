"""The command: parse flags, load data, train or evaluate, report."""

import dataclasses
import logging
import sys
from collections.abc import Sequence

import jax
from flax import nnx
from tqdm import tqdm

from lru.analysis.plots import plot_curves, plot_eigenvalues
from lru.analysis.spectra import eigenvalues
from lru.dataloaders import DATASETS, Dataset, Prepared, dataset_from_options
from lru.dataloaders.files.fetch import DownloadError
from lru.dataloaders.store.cache import CacheError
from lru.flags import load_recipe, parse, recipe_names
from lru.layers import LAYERS, resolve_options
from lru.tasks import TASKS, Task
from lru.training.config import Config
from lru.training.loop import NonFiniteError, Trainer
from lru.training.memory import keep_freed_memory
from lru.training.report import format_table, metric_rows, summarise
from lru.training.runs import Run, open_run, open_trackers
from lru.training.trackers import read_jsonl

logger = logging.getLogger("lru")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    show_messages()
    keep_freed_memory()
    try:
        command, config = parse(sys.argv[1:] if arguments is None else arguments)
        if command.list:
            print(_listing())
        else:
            _run(config)
        return 0
    except (ValueError, OSError, CacheError, DownloadError, NonFiniteError) as error:
        print(f"run_train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130


class _AboveTheBar(logging.Handler):
    """Prints messages bare, without breaking the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def show_messages() -> None:
    """Print what the library logs; other libraries keep their own settings."""
    if not logger.handlers:
        logger.addHandler(_AboveTheBar())
        # Orbax narrates every save.
        logging.getLogger("absl").setLevel(logging.ERROR)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _listing() -> str:
    def first_line(thing: object) -> str:
        return (thing.__doc__ or "").splitlines()[0]

    sections = {
        "models": {name: first_line(layer) for name, layer in LAYERS.items()},
        "data sets": {name: first_line(dataset) for name, dataset in DATASETS.items()},
        "recipes": {name: load_recipe(name)["title"] for name in recipe_names()},
    }
    return "\n\n".join(f"{title}\n{format_table(rows)}" for title, rows in sections.items())


def resolve(config: Config) -> tuple[Config, Dataset]:
    """Fill in the options that were left to the model and the data set, and check their names."""
    dataset = dataset_from_options(config.data.dataset, config.data.data_options)
    options = resolve_options(config.model.model, config.model.options)
    return Config(
        dataclasses.replace(config.model, options=options),
        dataclasses.replace(config.data, data_options=dataclasses.asdict(dataset)),
        config.train,
        config.run,
    ), dataset


def _run(config: Config) -> None:
    config, dataset = resolve(config)
    data = dataset.load(config.run.raw_dir, config.run.dir_name)
    task = TASKS[dataset.task](data.card, config.model)
    run = open_run(config)
    trainer = Trainer(config, task, data, run)
    try:
        print(format_table(_facts(config, data, trainer)))
        if config.run.eval_only:
            print(format_table(metric_rows(trainer.evaluate())))
            return
        with open_trackers(config, run, trainer.step) as trackers:
            summary = trainer.fit(trackers)
        counts = data.card.splits["test"]["class_counts"]
        on_test = data.card.options.get("protocol") == "lra"
        majority = max(counts) / sum(counts) if counts else None
        print(summarise(summary, majority, selected_on_test=on_test))
        if config.run.plots:
            _plot(config, task, trainer, run)
        print(f"  {run.path}")
    finally:
        trainer.close()


def _facts(config: Config, data: Prepared, trainer: Trainer) -> dict[str, str]:
    card, batches = data.card, trainer.train_batches
    rows = " lines" if card.kind == "text" else ""
    sizes = ", ".join(f"{name} {split['examples']:,}" for name, split in card.splits.items()) + rows
    device = jax.devices()[0]
    return {
        "model": f"{config.model.model}, {trainer.n_parameters:,} parameters",
        "data": f"{card.name}: {sizes}. {card.provenance}",
        "comparable": card.comparable,
        "batches": batches.description(),
        "updates": f"{trainer.step} of {trainer.total_steps} done",
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})"
        + (", which holds the data" if trainer.on_device else ""),
    }


def _plot(config: Config, task: Task, trainer: Trainer, run: Run) -> None:
    folder = run.path / "plots"
    folder.mkdir(exist_ok=True)
    plot_curves(read_jsonl(run.metrics_file), folder / "curves.png")
    initial = eigenvalues(task.build_model(nnx.Rngs(config.train.jax_seed)))
    if initial:
        plot_eigenvalues(initial, eigenvalues(trainer.model()), folder / "eigenvalues.png")
