"""The verb from end to end, but for training: which runs start, what is said and gathered."""

import json
import signal

import pytest

from lru.commands import main, sweep
from lru.defaults import resolved
from lru.flags import parse
from lru.run_folders import run_path
from lru.training.interrupts import STOP_SIGNALS
from lru.training.runs import Run

FILE = """
method: grid
parameters:
  model: {values: [gru, lstm]}
  lr_base: {values: [0.01, 0.1]}
  dataset: {value: copy-classification}
  data_options:
    parameters: {n_train: {value: 24}, n_val: {value: 8}, n_test: {value: 8}, delay: {value: 3}}
  n_layers: {value: 1}
  d_model: {value: 4}
  batch_size: {value: 8}
  max_steps: {value: 3}
  norm: {value: layer}
  plots: {value: false}
"""

NAMES = [f"model={model},lr_base={rate}" for model in ("gru", "lstm") for rate in (0.01, 0.1)]


def train(words):
    """Leave what a training leaves."""
    config = resolved(parse(words)[1])
    run = Run(run_path(config))
    run.path.mkdir()
    config.save(run.config_file)
    names = ("train/loss", "val/loss", "val/accuracy")
    rates = [0.1, 0.3] if config.train.lanes else [config.train.lr_base]
    reports = [dict.fromkeys(names, rate) for rate in rates]
    lines = {f"lane{k}/{name}": v for k, report in enumerate(reports) for name, v in report.items()}
    line = {"step": 3, "epoch": 1.0, **(lines if len(rates) > 1 else reports[0])}
    run.metrics_file.write_text(json.dumps(line) + "\n")
    run.summary_file.write_text(json.dumps({"best": reports}))
    return 0


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Starts a sweep, of which one run may fail, or a signal come before the third."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(FILE)

    def start(*flags, fails=None, stops=None):
        names = []

        def run_commands(commands, at_once, ended, stop_signals):
            assert (at_once, stop_signals) == (2, STOP_SIGNALS)
            for number, command in enumerate(commands):
                if stops and number == 2:
                    return stops
                names.append(command.words[-1].removeprefix("--name=")[:-7])
                command.log.parent.mkdir(exist_ok=True, parents=True)
                command.log.write_text("0%\rthe last words\n\n")
                ended(number, 7 if names[-1] == fails else train(command.words[4:]))
            return None

        monkeypatch.setattr(sweep, "run_commands", run_commands)
        return main(["sweep", "toy.yaml", "--jobs", "2", *flags]), names

    return start


def test_a_sweep_goes_on_where_it_was_and_one_page_has_all_of_it(started, tmp_path, capsys):
    assert started(stops=signal.SIGTERM) == (75, NAMES[:2])
    assert "SIGTERM; 2 of 4 runs are finished, and the same" in capsys.readouterr().err
    assert started(fails=NAMES[3]) == (1, NAMES[2:])
    out, error = capsys.readouterr()
    assert "sweep toy: 4 runs in runs/toy, 2 finished" in out
    assert f"{NAMES[3]}-" in out
    assert ": exit status 7: the last words\n" in out
    assert "1 of 4 runs failed: see runs/toy/logs; the same command starts these alone" in error
    assert started() == (0, NAMES[3:])
    assert "[4/4] val/accuracy 0.1000\n" in capsys.readouterr().out
    assert started() == (0, [])
    assert started("--epochs", "2", stops=signal.SIGINT) == (130, NAMES[:2])
    assert "interrupted; 2 of 4 runs are finished" in capsys.readouterr().err

    assert main(["report", "toy"]) == 0
    page = (tmp_path / "reports" / "toy" / "report.md").read_text()
    assert "# Report on 6 runs" in page
    assert main(["compare", "runs/toy"]) == 0
    assert "lr_base" in capsys.readouterr().out


def test_points_train_as_lanes_where_that_is_asked_for(started, capsys):
    assert started("--join_lanes")[1] == [
        f"model={m},lanes=lr_base=0.01,0.1" for m in ("gru", "lstm")
    ]
    assert "[2/2] val/accuracy 0.2000 ± 0.1414" in capsys.readouterr().out
