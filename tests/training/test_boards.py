"""Files, TensorBoard and Weights & Biases: every kind of finding, and runs that go on."""

import io
import json
import logging
import math
import os
import socket
import struct
import sys
import time
import types
from threading import Thread

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lru.config import Config
from lru.run_folders import open_run
from lru.tasks import (
    Animation,
    Bars,
    ConfusionMatrix,
    Curves,
    HeatMap,
    Histogram,
    Picture,
    PictureGrid,
    Table,
)
from lru.training import boards
from lru.training.boards import Files, TensorBoardTracker, WandbTracker
from lru.training.runs import open_trackers
from lru.training.trackers import read_jsonl, truncate


@pytest.mark.parametrize(
    ("package", "extra", "open_tracker"),
    [
        ("tensorboardX", "tensorboard", lambda folder: TensorBoardTracker(folder)),
        ("wandb", "wandb", lambda folder: WandbTracker(folder, "p", None, "n", {})),
    ],
)
def test_a_missing_package_names_its_extra(package, extra, open_tracker, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'pip install "lru-jax\[{extra}\]"'):
        open_tracker(tmp_path)


PICTURE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
HEAT = np.arange(6.0).reshape(2, 3)
FINDINGS = {
    "mistakes": Table(("given", "loss"), [("a, b", 1 / 3)]),
    "picture": Picture(PICTURE),
    "grid": PictureGrid([Picture(PICTURE)] * 3, ["a", "b", "c"]),
    "heat": HeatMap(HEAT, "time", "unit"),
    "confusion": ConfusionMatrix(np.array([[5, 1], [0, 3]]), ["cat", "dog"]),
    "bars": Bars({"val": [0.5, 0.7], "test": [0.4, 0.6]}, ["gru", "lru"], {"val": [0.1, 0.1]}),
    "curves": Curves({"loss": ([1, 2, 3], [3.0, 2.0, 1.5])}, log_scale=True),
    "weights": Histogram([0.0, 0.1, 0.1, 0.9, np.nan], n_bins=3),
    "moving": Animation([HeatMap(HEAT), HeatMap(1 - HEAT)]),
}
DRAWN = FINDINGS.keys() - {"mistakes", "weights", "moving"}
"""What TensorBoard and Weights & Biases show as an image."""


def test_every_kind_of_finding_is_a_file_and_the_speed_has_a_file(tmp_path):
    tracker = Files(tmp_path)
    tracker.log(3, {"train/loss": 0.5})
    tracker.log(3, {"speed/steps_per_second": 8.0})
    tracker.show(3, FINDINGS)
    tracker.close()
    assert (tmp_path / "tables" / "mistakes.csv").read_text() == f'given,loss\n"a, b",{1 / 3}\n'
    assert (tmp_path / "curves" / "curves.csv").read_text() == (
        "curve,,\nloss,1,3.0\nloss,2,2.0\nloss,3,1.5\n"
    )
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        *(f"{name}.png" for name in DRAWN | {"weights"}),
        "moving.gif",
    }
    with Image.open(tmp_path / "pictures" / "picture.png") as picture:
        np.testing.assert_array_equal(picture, PICTURE)
    with Image.open(tmp_path / "pictures" / "moving.gif") as picture:
        assert picture.n_frames == 2
    assert read_jsonl(tmp_path / "speed.jsonl") == [{"step": 3, "speed/steps_per_second": 8.0}]


def test_evaluations_that_follow_fast_are_drawn_once_and_the_last_at_the_end(tmp_path):
    tracker, table = Files(tmp_path), tmp_path / "tables" / "count.csv"
    for count in range(3):
        tracker.show(count, {"count": Table(("count",), [(str(count),)])})
        assert table.read_text() == "count\n0\n"
    tracker.close()
    assert table.read_text() == "count\n2\n"


def events(folder):
    """The values of all events of a folder, by tag."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.iterdir()
    content, found = file.read_bytes(), {}
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        for value in Event.FromString(content[12 : 12 + length]).summary.value:
            found[value.tag] = value
        content = content[16 + length :]
    return found


def test_every_kind_of_finding_is_in_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    tracker = TensorBoardTracker(tmp_path, purge_step=3, texts={"config": {"lr_base": 0.1}})
    tracker.log(3, {"train/loss": 0.5, "epoch": 1})
    tracker.show(3, FINDINGS)
    tracker.flush()
    tracker.close()
    found = events(tmp_path)
    assert (found["train/loss"].simple_value, found["epoch"].simple_value) == (0.5, 1)
    texts = [found[f"{name}/text_summary"].tensor.string_val[0] for name in ("mistakes", "config")]
    assert b"| a, b | 0.3333 |" in texts[0]
    assert b"| lr_base | 0.1 |" in texts[1]
    assert found["weights"].histo.num == 4
    for name in DRAWN | {"moving"}:
        with Image.open(io.BytesIO(found[name].image.encoded_image_string)) as picture:
            assert picture.size == (found[name].image.width, found[name].image.height)
            assert getattr(picture, "n_frames", 1) == 1 + (name == "moving")


@pytest.fixture
def no_login(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


@pytest.fixture
def fake_wandb(monkeypatch):
    """A module `wandb` whose runs remember their calls."""
    module = types.ModuleType("wandb")
    module.started = []

    def init(**settings):
        run = types.SimpleNamespace(settings=settings, logged=[], axes=[], finished=False)
        run.log = run.logged.append
        run.define_metric = lambda name, step_metric: run.axes.append((name, step_metric))
        run.finish = lambda: setattr(run, "finished", True)
        module.started.append(run)
        return run

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_reattaches_to_its_run(tmp_path, fake_wandb, no_login):
    for step in (1, 2):
        tracker = WandbTracker(tmp_path / "run", "lru", "team", "first", {"seed": 3})
        tracker.log(step, {"train/loss": jnp.float32(0.5)})
        tracker.flush()
        tracker.close()
    first, second = fake_wandb.started
    assert first.settings == second.settings
    run_id = (tmp_path / "run" / "wandb_id").read_text()
    assert first.settings == {
        "dir": str(tmp_path / "run"),
        "project": "lru",
        "entity": "team",
        "name": "first",
        "config": {"seed": 3},
        "id": run_id,
        "resume": "allow",
        "mode": "offline",
        "settings": {"init_timeout": 12, "finish_timeout": 12},
    }
    assert len(run_id) == 8
    assert second.logged == [{"step": 2, "train/loss": 0.5}]
    assert second.axes == [("*", "step")]
    assert second.finished
    WandbTracker(tmp_path / "another", "lru", None, "second", {})
    assert fake_wandb.started[-1].settings["id"] != run_id


def test_wandb_without_a_login_is_offline_and_says_so(no_login, caplog):
    assert boards._wandb_mode() == "offline"
    assert [(record.levelno, "logging offline" in record.message) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


def test_wandb_is_online_with_a_key_where_somebody_answers(no_login, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(boards, "WANDB_SECONDS", 0.3)
    # What listens, but accepts nobody, takes what is sent and is silent.
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert boards._wandb_mode() == "offline"

        def refuse():
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")

        # The first in the queue is who has given up.
        server.accept()[0].close()
        thread = Thread(target=refuse)
        thread.start()
        monkeypatch.setattr(boards, "WANDB_SECONDS", 30)
        assert boards._wandb_mode() == "online"
        thread.join()
    assert boards._wandb_mode() == "offline"
    assert {record.message for record in caplog.records} == {
        f"{url} does not answer: logging offline; wandb sync uploads later"
    }


def test_wandb_is_online_with_a_netrc_login(no_login, monkeypatch):
    monkeypatch.setattr(boards, "_answers", lambda url: True)
    no_login.write_text("machine another.host login user password secret\n")
    assert boards._wandb_mode() == "offline"
    no_login.write_text("machine api.wandb.ai login user password secret\n")
    assert boards._wandb_mode() == "online"


def test_wandb_mode_of_the_environment_wins(no_login, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert boards._wandb_mode() == os.environ["WANDB_MODE"]


def records(file):
    """The records of a file of wandb: those of a log of LevelDB after seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        # Whole, or the last part of one.
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


@pytest.fixture
def offline(tmp_path, no_login, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))


def histories(run_dir):
    """Lines of every process of a run, and the axes that it declared."""
    run_id = (run_dir / "wandb_id").read_text()
    lines, axes = [], set()
    for folder in sorted((run_dir / "wandb").glob("offline-run-*")):
        # Two that begin in one second are told apart by a number at the end.
        assert run_id in folder.name
        found = list(records(folder / f"run-{run_id}.wandb"))
        lines.append(
            [
                {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item}
                for r in found
                if r.HasField("history")
            ]
        )
        axes |= {(r.metric.glob_name, r.metric.step_metric) for r in found if r.HasField("metric")}
    return lines, axes


@pytest.mark.filterwarnings("default")
def test_the_offline_history_of_a_resumed_run_is_that_of_its_lines(tmp_path, offline):
    config = Config.from_flat({"name": "one", "runs_dir": str(tmp_path), "use_wandb": True})
    run = open_run(config)
    for first, last in ((0, 4), (2, 6)):
        truncate(run.metrics_file, first)
        with open_trackers(run, config.run, first, config.flat()) as trackers:
            for step in range(first + 1, last + 1):
                trackers.log(step, {"epoch": step / 2, "train/loss": 1 / step, "lr": math.inf})
                trackers.log(step, {"epoch": step / 2, "val/loss": 2 / step})
                trackers.log_speed(step, {"steps_per_second": 9.0})
            trackers.show(last, FINDINGS)
    lines, axes = histories(run.path)
    # wandb's service may write a moment after a run has finished.
    give_up = time.monotonic() + 20
    while "weights/_type" not in set().union(*lines[-1]) and time.monotonic() < give_up:
        time.sleep(0.05)
        lines, axes = histories(run.path)
    assert [{line["step"] for line in of_process} for of_process in lines] == [
        {1, 2, 3, 4},
        {3, 4, 5, 6},
    ]
    assert ("*", "step") in axes
    # By its own axis: what a later process logs of a step is in the place of what was there.
    history, logged = {}, {}
    for line in (line for of_process in lines for line in of_process):
        own = {k: v for k, v in line.items() if k in ("epoch", "train/loss", "val/loss", "lr")}
        history.setdefault(line["step"], {}).update(own)
    for line in read_jsonl(run.metrics_file):
        logged.setdefault(line.pop("step"), {}).update(line)
    assert history == logged
    (shown,) = [line for line in lines[-1] if "weights/_type" in line]
    kinds = dict.fromkeys(DRAWN, "image-file") | {"weights": "histogram", "moving": "video-file"}
    kinds["mistakes"] = "table-file"
    assert {name: shown[f"{name}/_type"] for name in FINDINGS} == kinds
    for name in FINDINGS.keys() - {"weights"}:
        assert list(run.path.glob(f"wandb/offline-run-*/files/{shown[name + '/path']}"))
