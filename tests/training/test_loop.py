"""The loop: what it logs, how it selects and stops, and that a resumed run is the same run."""

import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru import experiment, run_folders
from lru.dataloaders import Dataset
from lru.flags import parse
from lru.training import lanes as lanes_module
from lru.training import run_state
from lru.training.checkpoints import Checkpoints, UnreadableError
from lru.training.hooks import Hook, NonFiniteError
from lru.training.interrupts import REQUEUE
from lru.training.runs import open_trackers
from lru.training.trackers import Trackers, read_jsonl
from lru.training.update import CompiledByShape

RUN_TRAIN = Path(__file__).parents[2] / "run_train.py"


class KilledError(Exception):
    """Stands in for the end of the process."""


def make_trainer(arguments):
    config = experiment.resolved(parse(arguments)[1])
    data = experiment.load_data(config)
    task, run = experiment.make_task(config, data), run_folders.check_run(config)
    trainer = experiment.make_trainer(config, data, task, run)
    run_folders.start(trainer, config)
    return config, trainer


def train(arguments, kill_after=None, change=None):
    """Run to the end, or until `kill_after` log lines; the summary and the log."""
    config, trainer = make_trainer(arguments)
    if change is not None:
        change(trainer)
    run = run_folders.open_run(config)
    try:
        with open_trackers(run, config.run, trainer.step, {}) as trackers:
            mortal = trackers if kill_after is None else _dying(trackers, kill_after)
            summary = trainer.fit(mortal)
    finally:
        trainer.close()
        run.close()
    return summary, read_jsonl(run.metrics_file)


def _dying(trackers, kill_after):
    class Dying(Trackers):
        lines = 0

        def log(self, step, metrics):
            if self.lines == kill_after:
                raise KilledError
            self.lines += 1
            trackers.log(step, metrics)

        def flush(self):
            trackers.flush()

    return Dying()


def losses(records, name="train/loss"):
    return [record[name] for record in records if name in record]


@pytest.fixture(scope="module")
def undisturbed(shared_flags):
    """A run to its end: its folder, outcome and log."""
    summary, records = train([*shared_flags, "--name", "first"])
    runs_dir = Path(shared_flags[shared_flags.index("--runs_dir") + 1])
    return runs_dir / "first", summary, records


@pytest.fixture
def first(undisturbed, tmp_path):
    """The outcome and the log of that run, of which the test has a copy as `first`."""
    folder, summary, records = undisturbed
    shutil.copytree(folder, tmp_path / "first")
    # A run that is restored from it goes where its folder says.
    file = tmp_path / "first" / "config.yaml"
    file.write_text(file.read_text().replace(str(folder.parent), str(tmp_path)))
    return summary, records


def test_logs_every_interval_and_every_epoch(flags, tmp_path):
    summary, records = train([*flags, "--log_memory", "True"])
    assert summary.steps == 15
    assert not summary.stopped_early
    assert [record["step"] for record in records] == [2, 4, 5, 5, 6, 8, 10, 10, 12, 14, 15, 15]
    assert [r["epoch"] for r in records if "val/loss" in r] == [1.0, 2.0, 3.0]
    assert records[-2]["lr"] == pytest.approx(1e-7, rel=1e-4)
    assert {"test/accuracy", "test/loss", "val/accuracy", "val/loss"} <= set(records[-1])
    (run,) = (path.parent for path in tmp_path.glob("*/metrics.jsonl"))
    # What depends on time has a file of its own.
    speed = read_jsonl(run / "speed.jsonl")
    assert [line["step"] for line in speed] == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    for line in speed:
        # Rows of 8, all of 7 steps.
        examples = line["speed/examples_per_second"]
        assert examples == pytest.approx(8 * line["speed/steps_per_second"])
        assert line["speed/tokens_per_second"] == pytest.approx(7 * examples)
        assert 0 <= line["speed/data_wait_share"] <= 1
        assert line["speed/peak_memory_bytes"] > 1e6
    assert speed[-1]["speed/compilations"] >= speed[0]["speed/compilations"] > 0
    assert not [name for record in records for name in record if name.startswith("speed/")]
    assert (run / "pictures" / "confusion.png").exists()


def test_a_lane_that_ends_shows_what_its_last_evaluation_found(flags, tmp_path):
    summary, _ = train([*flags, "--n_seeds", "2", "--stop_at_loss", "100"])
    assert summary.stopped_early
    found = {path.parent.name for path in tmp_path.glob("*/pictures/*/confusion.png")}
    assert found == {"lane0", "lane1"}


def of_many_lengths(flags, n_train, n_eval):
    """The flags, with data whose rows have up to 60 steps."""
    options = [f"n_train={n_train}", f"n_val={n_eval}", f"n_test={n_eval}"]
    options += ["min_length=5", "max_length=60"]
    arguments = [flag for flag in flags if "=" not in flag]
    arguments[arguments.index("copy-classification")] = "listops-classification"
    at = arguments.index("--data_options") + 1
    return [*arguments[:at], *options, *arguments[at:]]


def test_evaluation_pads_to_the_lengths_of_training(flags):
    _, trainer = make_trainer(of_many_lengths(flags, 200, 60))
    trainer.close()
    bounds = {name: feed.batches.bounds for name, feed in trainer.sources.items()}
    assert len(bounds["train"]) == 8
    for name in ("val", "test"):
        assert len(bounds[name]) > 4
        further = set(bounds[name]) - set(bounds["train"])
        assert all(length > bounds["train"][-1] for length in further)
        assert len(further) <= 1


def test_learns(flags):
    longer = ["--epochs", "60", "--eval_every", "100", "--log_every", "50"]
    summary, records = train([*flags, *longer, "--lr_base", "0.02", "--p_dropout", "0"])
    assert summary.best[0]["val/accuracy"] > 0.6, "chance is one in three"
    assert losses(records)[-1] < 0.7 * losses(records)[0]


# At once, before the first checkpoint, after an evaluation and before the last line.
@pytest.mark.parametrize("kills", [(0, 1), (8, 2)])
def test_a_run_killed_twice_and_resumed_logs_the_same(flags, undisturbed, kills):
    killed = [*flags, "--checkpoint_every", "3", "--name", "killed"]
    for lines in kills:
        with pytest.raises(KilledError):
            train(killed, lines)
    assert train(killed)[1] == undisturbed[2]


def test_data_on_the_device_gives_the_same_numbers_and_may_move_there_at_any_time(flags, tmp_path):
    _, streamed = train([*flags, "--name", "streamed", "--on_device", "False"])
    _, resident = train([*flags, "--name", "resident", "--on_device", "True"])
    assert resident == streamed
    with pytest.raises(KilledError):
        train([*flags, "--name", "moved", "--on_device", "False"], kill_after=6)
    _, moved = train([*flags, "--name", "moved", "--on_device", "True", "--steps_per_call", "7"])
    assert moved == streamed


@pytest.mark.parametrize(
    ("more", "method"),
    [
        ([], None),
        (["--n_seeds", "3", "--n_microbatch", "3"], "vmap"),
        (["--n_seeds", "3"], "map"),
    ],
    ids=["one lane", "lanes joined", "lanes in turn"],
)
def test_several_updates_in_a_call_give_the_same_numbers(flags, monkeypatch, more, method):
    common = [*of_many_lengths(flags, 80, 8), "--n_buckets", "2", "--epochs", "2", *more]
    common += ["--log_every", "5", "--checkpoint_every", "7"]
    # Lanes in turn are loops in a loop, which are compiled in another way.
    rounding = 1e-5 if method == "map" else 0
    compiled, calls = [], []

    class Noted(CompiledByShape):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            compiled.append(self._compiled)

    def prepare(trainer):
        trainer._programs.method = method
        series = trainer.sources["train"].series

        def noted(*place, **limits):
            for fed in series(*place, **limits):
                calls.append(range(trainer.step + 1, trainer.step + fed.count + 1))
                yield fed

        trainer.sources["train"].series = noted

    monkeypatch.setattr(lanes_module, "CompiledByShape", Noted)
    _, single = train([*common, "--name", "single"], change=prepare)
    assert {len(call) for call in calls} == {1}
    programs = [len(found) for found in compiled]
    if method is None:
        with pytest.raises(KilledError):
            train([*common, "--name", "several", "--steps_per_call", "4"], 3, change=prepare)
    compiled.clear()
    calls.clear()
    _, several = train([*common, "--name", "several", "--steps_per_call", "4"], change=prepare)
    assert [line.keys() for line in several] == [line.keys() for line in single]
    for one, other in zip(single, several, strict=True):
        assert other == pytest.approx(one, rel=rounding, abs=0)
    assert [len(found) for found in compiled] == programs
    assert max(len(call) for call in calls) > 1
    within = [step for call in calls for step in call[:-1]]
    assert not any(step % every == 0 for step in within for every in (5, 7, 10))
    states = []
    for name in ("single", "several"):
        _, trainer = make_trainer([*common, "--name", name])
        states.append(jax.device_get(trainer.state))
        trainer.close()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(y, x, rounding, rounding), *states)


def test_batches_that_are_sent_are_not_several_a_call(flags):
    config, trainer = make_trainer([*flags, "--on_device", "False"])
    trainer.close()
    parts = trainer.task, trainer.sources, config.train, config.make_optimizer()
    message = r"steps_per_call must be 1 for copy-classification, whose batches are sent .* got 7"
    with pytest.raises(ValueError, match=message):
        run_state.RunState(*parts, steps_per_call=7)


@pytest.mark.parametrize(("asked", "saved"), [(3, 2), (8, 5)], ids=["updates", "evaluation"])
def test_a_hook_stops_between_two_updates_or_two_batches_of_an_evaluation(
    flags, undisturbed, asked, saved
):
    class Stop(Hook):
        name = "stop"
        left = asked

        def stops(self, run):
            self.left -= 1
            return self.left <= 0

    with pytest.raises(KeyboardInterrupt):
        train([*flags, "--name", "stopped"], change=lambda trainer: trainer.hooks.append(Stop()))
    _, trainer = make_trainer([*flags, "--name", "stopped"])
    assert (trainer.step, trainer.evaluated) == (saved, saved != 5)
    trainer.close()
    assert train([*flags, "--name", "stopped"])[1] == undisturbed[2]


def test_a_run_stopped_before_its_last_evaluation_is_evaluated_once(flags):
    class Stop(Hook):
        name = "stop"

        def stops(self, run):
            return run.step == 15

    with pytest.raises(KeyboardInterrupt):
        train(flags, change=lambda trainer: trainer.hooks.append(Stop()))
    summary, _ = train(flags)
    assert summary.best
    _, trainer = make_trainer(flags)
    assert (trainer.step, trainer.finished) == (15, True)
    trainer.close()


def test_resumes_from_the_checkpoint_before_one_that_is_damaged(flags, tmp_path):
    class Wait(Hook):
        name = "wait"

        def after_evaluation(self, run, reports):
            run.wait()

    _, undisturbed = train([*flags, "--name", "whole"], change=lambda t: t.hooks.append(Wait()))
    last = tmp_path / "whole" / "checkpoints" / "last"
    assert {path.name for path in last.iterdir()} == {"10", "15"}
    for path in last.glob("15/state/d/*"):
        path.write_bytes(path.read_bytes()[:-20])
    command = [sys.executable, str(RUN_TRAIN), *flags, "--name", "whole"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert read_jsonl(tmp_path / "whole" / "metrics.jsonl") == undisturbed
    sentence = r"the checkpoint of update 15 in .* damaged .* the run goes on from the one before\n"
    assert re.match(sentence, said), said
    assert "Traceback" not in said
    for path in last.glob("*/progress/metadata"):
        path.write_bytes(b"")
    shutil.rmtree(last / "10")
    with pytest.raises(UnreadableError, match="none before it; --reset starts over"):
        train([*flags, "--name", "whole"])


def test_killed_at_random_moments_and_resumed_logs_the_same(flags, tmp_path):
    common = [*flags, "--checkpoint_every", "3", "--epochs", "20"]
    _, undisturbed = train([*common, "--name", "undisturbed"])
    command = [sys.executable, str(RUN_TRAIN), *common, "--name", "killed"]
    log = tmp_path / "killed" / "metrics.jsonl"

    def lines():
        return len(log.read_bytes().splitlines()) if log.exists() else 0

    random = np.random.default_rng(0)
    for number, status in [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, REQUEUE)]:
        enough = lines() + random.integers(2, 10)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and lines() < enough:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(number)
        assert process.wait() == status, "the run was over before it was killed"
    summary, resumed = train([*common, "--name", "killed"])
    assert resumed == undisturbed
    _, trainer = make_trainer(["--name", "killed", "--runs_dir", str(tmp_path), "--eval_only"])
    assert ([trainer.step], trainer.evaluate()) == (summary.best_step, summary.best)
    trainer.close()


def test_a_finished_run_is_not_trained_again(flags, first):
    summary, records = first
    again, same = train([*flags, "--name", "first"])
    assert same == records
    assert (again.steps, again.best) == (summary.steps, summary.best)


def test_the_validation_split_selects_and_the_test_split_does_not(flags):
    scripted = iter(
        [
            {"val/accuracy": 0.5, "val/loss": 1.0, "test/accuracy": 0.9, "test/loss": 1.0},
            {"val/accuracy": 0.7, "val/loss": 1.0, "test/accuracy": 0.1, "test/loss": 1.0},
            {"val/accuracy": 0.6, "val/loss": 1.0, "test/accuracy": 0.8, "test/loss": 1.0},
        ]
    )

    def script(trainer):
        trainer.evaluate = lambda: [next(scripted)]

    summary, _ = train(flags, change=script)
    assert summary.best_step == [10]
    assert summary.best[0]["test/accuracy"] == 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_validation_that_is_not_finite_is_worse_than_any_that_is(flags, bad, caplog):
    accuracies = iter([bad, 0.2, 0.1, 0.05])

    def script(trainer):
        trainer.evaluate = lambda: [{"val/accuracy": next(accuracies)}]

    arguments = [*flags, "--epochs", "9", "--early_stop_patience", "2"]
    summary, _ = train(arguments, change=script)
    assert (summary.steps, summary.best_step, summary.stopped_early) == (20, [10], True)
    (message,) = caplog.messages
    assert f"val/accuracy after update 5 is {bad}, which is not finite" in message
    _, trainer = make_trainer([*arguments, "--eval_only"])
    assert trainer.step == 10
    trainer.close()


def test_stops_early_and_stays_stopped(flags):
    def script(trainer):
        trainer.evaluate = lambda: [{"val/accuracy": 0.5, "val/loss": 1.0}]

    arguments = [*flags, "--epochs", "9", "--early_stop_patience", "2"]
    summary, _ = train(arguments, change=script)
    assert (summary.steps, summary.best_step, summary.stopped_early) == (15, [5], True)
    again, _ = train(arguments)
    assert (again.steps, again.stopped_early) == (15, True)


def test_lowers_the_rate_on_a_plateau_and_not_below_its_least(flags):
    def script(trainer):
        trainer.evaluate = lambda: [{"val/accuracy": 0.5, "val/loss": 1.0}]

    arguments = [*flags, "--cosine_anneal", "False", "--lr_patience", "1", "--reduce_factor", "0.5"]
    arguments += ["--lr_min", "4e-4", "--log_every", "5", "--epochs", "4"]
    _, records = train(arguments, change=script)
    np.testing.assert_allclose(losses(records, "lr"), [1e-3, 1e-3, 5e-4, 4e-4], rtol=1e-6)


@pytest.mark.parametrize("accuracies", [[0.5, 0.7, 0.4], [np.nan, 0.7, 0.6, 0.4]])
def test_the_trigger_follows_the_validation_split(flags, accuracies, caplog):
    last, scripted = 5 * len(accuracies), iter([*accuracies, 0.3])

    def script(trainer):
        trainer.evaluate = lambda: [{"val/accuracy": next(scripted)}]

    with caplog.at_level("INFO", "lru.training.hooks"):
        train([*flags, "--epochs", str(len(accuracies) + 1), "--nonmono", "1"], change=script)
    assert caplog.messages[-1] == f"the weights are averaged from update {last} on"


def test_the_average_is_evaluated_and_kept_and_training_goes_on_without_it(flags):
    common = [*flags, "--lr_base", "0.05", "--cosine_anneal", "False"]
    _, plain = train([*common, "--name", "plain"])
    again = [*common, "--name", "averaged", "--average_from", "0"]
    summary, averaged = train(again)
    # Two programs, which may round differently.
    np.testing.assert_allclose(losses(averaged), losses(plain), rtol=1e-6)
    assert all(np.not_equal(losses(averaged, "val/loss"), losses(plain, "val/loss")))
    _, trainer = make_trainer(again)
    assert trainer.evaluate() == [{name: averaged[-1][name] for name in summary.best[0]}]
    trainer.close()
    _, trainer = make_trainer([*again, "--eval_only"])
    assert trainer.evaluate() == summary.best
    assert not averages(trainer)
    trainer.close()


@pytest.mark.parametrize(("norm", "told"), [("batch", 1), ("layer", 0)])
def test_microbatches_with_batch_norm_are_said_once(flags, caplog, norm, told):
    with caplog.at_level("INFO", "lru.training.run_state"):
        make_trainer([*flags, "--n_microbatch", "3", "--norm", norm])[1].close()
    assert caplog.messages == ["batch norm takes its statistics from each 3 rows"] * told


@pytest.mark.parametrize(
    "more",
    [
        ["--average_from", "1"],
        ["--n_microbatch", "3"],
        ["--optimizer", "lbfgs", "--max_iter", "3", "--history_size", "4", "--lr_base", "0.1"],
    ],
)
def test_other_updates_killed_and_resumed_log_the_same(flags, more):
    assert_killed_and_resumed_log_the_same([*flags, *more])


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_network_that_is_measured_killed_and_resumed_logs_the_same(flags, optimizer):
    assert_killed_and_resumed_log_the_same(
        [
            *("--model", "quantum-rnn", "--workspace", "2", "--stages", "1"),
            *("--dataset", "elman-xor", "--data_options", "n_train=40", "n_val=8", "n_test=8"),
            *("--batch_size", "8", "--max_steps", "8", "--eval_every", "3", "--log_every", "2"),
            *("--optimizer", optimizer),
            # Folders, without the model and the data.
            *flags[flags.index("--runs_dir") :],
        ]
    )


def assert_killed_and_resumed_log_the_same(flags):
    common = [*flags, "--checkpoint_every", "3"]
    _, undisturbed = train([*common, "--name", "undisturbed"])
    killed = [*common, "--name", "killed"]
    with pytest.raises(KilledError):
        train(killed, kill_after=6)
    assert train(killed)[1] == undisturbed


def test_fine_tuning_starts_from_the_best_weights_alone(flags, tmp_path):
    train([*flags, "--name", "first", "--average_from", "1"])
    _, first = make_trainer(["--name", "first", "--runs_dir", str(tmp_path), "--eval_only"])
    more = ["--name", "tuned", "--finetune", "--average_from", "0", "--epochs", "1"]
    more += ["--clip_norm", "1", "--restore", str(tmp_path / "first")]
    _, tuned = make_trainer(more)
    for one, other in zip(*(jax.tree.leaves(t.state.params) for t in (first, tuned)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert tuned.step == 0
    (before,) = tuned.evaluate()
    assert [before] == first.evaluate()
    for trainer in (first, tuned):
        trainer.close()
    summary, records = train(more)
    assert (summary.steps, records[-1]["epoch"]) == (5, 1.0)
    assert {name: records[-1][name] for name in before} != before
    _, tuned = make_trainer(more)
    assert averages(tuned)
    tuned.close()


def averages(trainer):
    """True if the model is another than that of the last update."""
    trees = nnx.state(trainer.model(), nnx.Param), trainer.state.params
    return any(map(np.any, map(np.not_equal, *map(jax.tree.leaves, trees))))


def test_numbers_are_fetched_only_when_later_updates_are_under_way(flags, monkeypatch):
    events = []
    fetch = jax.device_get

    def watched(values):
        if isinstance(values, tuple):
            events.append("fetch")
        return fetch(values)

    def script(trainer):
        take = trainer.take_sums

        def noted():
            events.append("interval")
            return take()

        trainer.take_sums = noted

    monkeypatch.setattr(jax, "device_get", watched)
    train([*flags, "--epochs", "1", "--log_every", "1"], change=script)
    # Each of five intervals is fetched when the next one ends, the last before the evaluation.
    assert events == ["interval", *["fetch", "interval"] * 4, "fetch"]


@pytest.mark.parametrize(
    ("bad", "log_every", "checkpoint_every", "last_good"),
    [(8, 2, 2, 6), (8, 4, 3, 6), (7, 4, 7, 5), (6, 5, 3, 5), (8, 50, 2, 6)],
)
def test_stops_at_the_first_update_that_is_not_finite(
    flags, tmp_path, bad, log_every, checkpoint_every, last_good
):
    arguments = [*flags, "--checkpoint_every", str(checkpoint_every), "--name", "broken"]
    arguments += ["--log_every", str(log_every)]

    def poison(trainer):
        train_step = trainer._functions.train

        def poisoned(state, batch):
            weights = jnp.where(state.step == bad - 1, jnp.nan, 1.0) * batch.weights
            return train_step(state, batch._replace(weights=weights))

        trainer._functions = trainer._functions._replace(train=poisoned)

    message = rf"update {bad} is not finite.*checkpoint is of update {last_good};.*--restore"
    with pytest.raises(NonFiniteError, match=message):
        train(arguments, change=poison)
    assert max(r["step"] for r in read_jsonl(tmp_path / "broken" / "metrics.jsonl")) < bad
    _, trainer = make_trainer(arguments)
    assert trainer.step == last_good
    trainer.close()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trainer.state.params))


def test_eval_only_gives_the_metrics_of_the_best_epoch(flags, first):
    summary, records = first
    config, trainer = make_trainer([*flags, "--name", "first", "--eval_only"])
    metrics = trainer.evaluate()
    trainer.close()
    assert metrics == summary.best
    assert read_jsonl(run_folders.open_run(config).metrics_file) == records


@pytest.mark.usefixtures("first")
def test_restore_continues_another_run_with_other_flags(tmp_path, caplog):
    summary, records = train(
        ["--restore", str(tmp_path / "first"), "--name", "second", "--epochs", "4"]
    )
    assert summary.steps == 20
    assert "is of 15 updates, this one of 20: from update 15 on the rate is" in caplog.text
    assert [r["epoch"] for r in records if "val/loss" in r] == [1.0, 2.0, 3.0, 4.0]
    assert summary.best_step == [20], "only its own epochs have checkpoints here"


@pytest.mark.parametrize("clip", [("None", "0.5"), ("0.5", "None")])
def test_restore_with_and_without_clipping(flags, tmp_path, clip):
    train([*flags, "--name", "first", "--clip_norm", clip[0]])
    more = ["--name", "second", "--epochs", "4", "--clip_norm", clip[1]]
    assert train(["--restore", str(tmp_path / "first"), *more])[0].steps == 20


@pytest.fixture
def change_data(monkeypatch):
    """Other facts on the cards of the data sets that are prepared from now on."""
    prepare = Dataset.load

    def change(**facts):
        def changed(*arguments):
            data = prepare(*arguments)
            return replace(data, card=replace(data.card, checksum="other", **facts))

        monkeypatch.setattr(Dataset, "load", changed)

    return change


@pytest.mark.usefixtures("first")
def test_a_run_is_not_resumed_or_continued_on_other_data(flags, tmp_path, change_data):
    change_data()
    with pytest.raises(ValueError, match=r"the data is not what the run in .* was trained on"):
        make_trainer([*flags, "--name", "first"])
    more = ["--restore", str(tmp_path / "first"), "--name", "two", "--epochs", "4"]
    with pytest.raises(ValueError, match=r"restore: the data is not what .*/first .*--finetune"):
        make_trainer(more)


@pytest.mark.usefixtures("first")
def test_fine_tuning_needs_data_whose_ids_mean_the_same(tmp_path, change_data):
    more = ["--restore", str(tmp_path / "first"), "--finetune", "--name", "two", "--epochs", "1"]
    change_data()
    assert train(more)[0].steps == 5
    change_data(vocabulary=["", "c", "b", "a", "?"])
    with pytest.raises(ValueError, match=r"the vocabulary is not that of the run in .*/first"):
        make_trainer([*more, "--name", "three"])


@pytest.mark.usefixtures("first")
def test_a_run_that_starts_over_forgets_the_best_of_other_data(flags, tmp_path, change_data):
    # As after an end between the first best checkpoint and the first to resume from.
    shutil.rmtree(tmp_path / "first" / "checkpoints" / "last")
    change_data()
    summary, _ = train([*flags, "--name", "first"])
    _, trainer = make_trainer([*flags, "--name", "first", "--eval_only"])
    assert trainer.evaluate() == summary.best
    trainer.close()


@pytest.mark.usefixtures("first")
def test_restore_with_another_seed_drops_out_by_it(tmp_path):
    more = ["--restore", str(tmp_path / "first"), "--name", "second", "--epochs", "4"]
    _, trainer = make_trainer([*more, "--jax_seed", "7"])
    assert trainer.state.seed == 7
    trainer.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["--average_from", "0"], ["--average_from", "None"]),
        ([], ["--average_from", "0"]),
        (["--nonmono", "1"], ["--nonmono", "None"]),
    ],
)
def test_restore_switches_averaging_on_and_off(flags, tmp_path, before, after):
    common = [*flags, "--lr_base", "0.05", "--cosine_anneal", "False"]
    train([*common, "--name", "first", *before])
    more = ["--restore", str(tmp_path / "first"), "--epochs", "4"]
    _, averaging = train([*more, "--name", "second", *after])
    _, never = train([*more, "--name", "third", "--average_from", "None", "--nonmono", "None"])
    np.testing.assert_allclose(losses(averaging), losses(never), rtol=1e-6)
    same = averaging[-1]["val/loss"] == never[-1]["val/loss"]
    assert same == ("None" in after)


@pytest.mark.usefixtures("first")
def test_evaluating_and_restoring_leave_the_other_folder_as_it_is(tmp_path):
    def content():
        files = (path for path in (tmp_path / "first").rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files}

    unfinished = tmp_path / "first" / "checkpoints" / "last" / "99.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "part").write_text("in flight")
    before = content()
    train(["--restore", str(tmp_path / "first"), "--name", "second", "--epochs", "4"])
    _, trainer = make_trainer(["--name", "first", "--runs_dir", str(tmp_path), "--eval_only"])
    trainer.evaluate()
    trainer.close()
    assert content() == before


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--d_model", "6"], "d_model: 4 there, 6 now"),
        (["--d_model", "6", "--finetune"], "d_model: 4 there, 6 now"),
        (["--optimizer", "sgd", "--epochs", "4"], "optimizer: adamw there, sgd now"),
    ],
)
def test_restore_into_another_network_names_the_flags_and_leaves_nothing(tmp_path, more, told):
    assert {path.name for path in (tmp_path / "first" / "checkpoints").iterdir()} == {
        "last",
        "best",
    }
    restore = ["--restore", "first", "--runs_dir", str(tmp_path), "--name"]
    with pytest.raises(ValueError, match=rf"the run in .*first has another .*\({told}\)"):
        make_trainer([*restore, "second", *more])
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


@pytest.mark.usefixtures("first")
def test_restore_with_nothing_left_to_do_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has made 15 updates, and this one would end after 15"):
        make_trainer(["--restore", str(tmp_path / "first"), "--name", "second"])


@pytest.mark.usefixtures("first")
def test_checkpoints_of_another_model_are_refused(flags, tmp_path):
    checkpoints = Checkpoints(tmp_path / "first" / "checkpoints")
    _, trainer = make_trainer([*flags, "--name", "wide", "--d_hidden", "6"])
    with pytest.raises(ValueError, match=r"has shape .* in the checkpoint .*, but .* in the model"):
        checkpoints.restore("last", trainer.state)
    checkpoints.close()
    trainer.close()
