"""Commands in processes of their own, a few at a time."""

import os
import signal
import sys
import threading
import time

import pytest

from lru.launch.local import MOST_STARTS, Command, run_commands
from lru.training.interrupts import STOP_SIGNALS


@pytest.fixture
def commands(tmp_path):
    """Makes commands of programs, each with a log."""

    def make(*programs):
        return [
            Command([sys.executable, "-S", "-c", program], tmp_path / "logs" / f"{number}.log")
            for number, program in enumerate(programs)
        ]

    return make


def run(commands, at_once=2):
    ended = {}
    stopped = run_commands(commands, at_once, ended.__setitem__, STOP_SIGNALS)
    return stopped, ended


def test_a_command_that_fails_stops_no_other_and_what_is_printed_is_kept(commands):
    made = commands("print('one')", "import sys; sys.exit('two')", "print('three')")
    assert run(made) == (None, {0: 0, 1: 1, 2: 0})
    assert [each.log.read_text() for each in made] == ["one\n", "two\n", "three\n"]


def test_so_many_run_at_a_time(commands, tmp_path):
    program = (
        "import os, time; os.mkdir(f'{os.getpid()}'); time.sleep(.2); "
        "print(len(os.listdir('.'))); os.rmdir(f'{os.getpid()}')"
    )
    (tmp_path / "at").mkdir()
    made = commands(*[f"import os; os.chdir({str(tmp_path / 'at')!r}); {program}"] * 4)
    _, ended = run(made)
    assert ended == dict.fromkeys(range(4), 0)
    together = [int(each.log.read_text()) for each in made]
    assert max(together) == 2


@pytest.mark.parametrize("end", ["sys.exit(75)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_asks_for_it_or_was_killed_starts_again_a_few_times(commands, end):
    end = f"import os, signal, sys; print('started', flush=True); {end}"
    (made,) = commands(end)
    _, ended = run([made])
    assert ended == {0: 75 if "75" in end else -signal.SIGKILL}
    assert made.log.read_text() == "started\n" * MOST_STARTS


@pytest.fixture
def _ctrl_c():
    """Ctrl-C is heeded: a shell lets what it starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_passed_on_and_nothing_more_starts(commands, number, tmp_path):
    handles = (
        "import signal, sys, time; "
        f"signal.signal({int(number)}, lambda *_: sys.exit(75)); "
        f"open({str(tmp_path / 'ready')!r}, 'w').close(); time.sleep(60)"
    )
    made = commands(handles, "print('never')")

    def interrupt():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    assert run(made, at_once=1) == (number, {0: 75})
    assert not made[1].log.exists()
