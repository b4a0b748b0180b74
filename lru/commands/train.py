"""Train, resume or evaluate a model."""

import logging
import sys
from collections.abc import Sequence

from flax import nnx

from lru.analysis.plots import plot_curves, plot_eigenvalues
from lru.analysis.spectra import eigenvalues
from lru.config import CHOICES, Config
from lru.dataloaders import DATASETS
from lru.defaults import resolved
from lru.devices import is_first
from lru.experiment import Experiment, facts, open_experiment
from lru.flags import CommandConfig, parse
from lru.launch.slurm import check_saves, submit
from lru.options import first_line
from lru.origins import load_recipe, recipe_names
from lru.run_folders import run_path
from lru.training.interrupts import PreemptedError, preemptible
from lru.training.memory import keep_freed_memory
from lru.training.report import format_table, report_rows, summarise
from lru.training.trackers import read_jsonl
from lru.words import UsageError

logger = logging.getLogger("lru")

TRAIN = (sys.executable, "-m", "lru", "train")
"""Words of a command that trains, without its flags."""

JOBS = "slurm"
"""Folder beside runs with what is kept of the jobs that train them."""


def run(arguments: Sequence[str]) -> int:
    """Run the command, or submit it; the exit status."""
    command, config = parse(arguments)
    if command.launcher == "local" or command.list:
        return carry_out(command, config)
    if config.run.reset:
        raise UsageError("launcher slurm excludes reset, as the job would start over every time")
    check_saves(config.run.stop_signals)
    path = run_path(resolved(config))
    words = [*TRAIN, *arguments, "--launcher=local"]
    (job,) = submit([words], path.parent / JOBS, command.slurm)
    print(f"  job {job.number} trains {path}; its log is {job.log}")
    return 0


def carry_out(command: CommandConfig, config: Config) -> int:
    """Do what a command line asks for: train, resume or evaluate, or list; the exit status."""
    if command.list:
        print(_listing())
        return 0
    if command.launcher != "local":
        raise UsageError(f"launcher must be local here, got {command.launcher}")
    keep_freed_memory()
    with preemptible(config.run.stop_signals), open_experiment(config) as experiment:
        _say(format_table(facts(experiment)))
        if config.run.eval_only:
            _say(format_table(report_rows(experiment.trainer.evaluate() or [])))
            return 0
        try:
            summary = experiment.fit()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_what_is_saved(experiment)) from None
        except PreemptedError as error:
            raise PreemptedError(f"{error}; {_what_is_saved(experiment)}") from None
        _say(summarise(summary, experiment.task))
        if config.run.plots and is_first():
            _plot(experiment)
        _say(f"  {experiment.run.path}")
    return 0


def _say(text: str) -> None:
    """Print what one process says for all."""
    if is_first():
        print(text)


def _what_is_saved(experiment: Experiment) -> str:
    """A sentence for whoever has interrupted a training."""
    saved, reset = experiment.run.saved_update, experiment.config.run.reset
    if saved is None:
        return "nothing is saved yet"
    command = "the same command without --reset" if reset else "the same command"
    return f"update {saved} is saved, and {command} resumes there"


def _listing() -> str:
    sections = {
        choice.plural: {name: first_line(entry) for name, entry in choice.registry.items()}
        for choice in CHOICES
    }
    sections["data sets"] = {name: first_line(dataset) for name, dataset in DATASETS.items()}
    sections["recipes"] = {name: load_recipe(name)["title"] for name in recipe_names()}
    return "\n\n".join(f"{title}\n{format_table(rows)}" for title, rows in sections.items())


def _plot(experiment: Experiment) -> None:
    folder = experiment.run.path / "plots"
    folder.mkdir(exist_ok=True)
    plot_curves(read_jsonl(experiment.run.metrics_file), folder / "curves.png")
    seed = experiment.trainer.lanes[0].seed
    initial = eigenvalues(experiment.task.build_model(nnx.Rngs(seed)))
    if initial:
        plot_eigenvalues(
            initial, eigenvalues(experiment.trainer.model()), folder / "eigenvalues.png"
        )
