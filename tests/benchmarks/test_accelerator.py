"""The measurement of accelerators, tried on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import accelerator

ROOT = Path(__file__).parents[2]
# Needed by the package, or by Flax for something else, but not by the program.
OTHERS = [
    *("docstring_parser", "flatbuffers", "grain", "markdown_it", "matplotlib", "orbax", "PIL"),
    *("safetensors", "shtab", "tensorboardX", "torch", "tqdm", "tyro", "wandb"),
]
ALONE = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({OTHERS}))
sys.argv[0] = "benchmarks/accelerator.py"
runpy.run_module("benchmarks.accelerator", run_name="__main__")
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """The rows of a try without what the program does not need, and what it printed."""
    path = tmp_path_factory.mktemp("results") / "accelerator.json"
    words = [sys.executable, "-c", ALONE, "--tiny", "--out", str(path)]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(path.read_text()), done.stdout


def test_every_case_has_a_time_or_holds_and_none_fails(tried):
    results, _ = tried
    assert results["copy_gb_s"] > 0
    for row in results["rows"]:
        assert "failed" not in row, row
        if row["what"] == "law":
            promised = row.get("precision") != "default"
            assert row["holds"] is (True if promised else None), row
        elif row["what"] == "scan":
            assert min(row["forward_ms"], row["both_ms"], row["both_share"]) > 0
        else:
            assert row["step_ms"] > 0


def test_all_cases_are_tried(tried):
    results, printed = tried
    found = {(row["what"], row["entrant"]) for row in results["rows"]}
    methods = {"associative", "chunked", "native", "pallas", "sequential"}
    assert found == {
        *(("law", name) for name in methods),
        *(("scan", name) for name in methods - {"pallas"}),
        *(("scan", f"lax.scan, unroll {unroll}") for unroll in (1, 16, 64, 256)),
        ("scan", "lax.associative_scan"),
        *(("sCIFAR step", f"lru{how}") for how in ("", ", associative", ", complex form")),
        ("sCIFAR step", "lru, products in bfloat16"),
        ("2 x 8 step", "qrnn"),
        ("2 x 8 step", "lstm"),
    }
    table = printed[printed.index("| case") :].splitlines()
    assert len(table) == 2 + len(results["rows"])
    laws = [row for row in results["rows"] if row["what"] == "law"]
    assert (
        len({tuple(row[key] for key in ("entrant", "a", "numbers", "dtype")) for row in laws}) == 44
    )


def test_the_peer_in_pytorch_is_timed():
    pytest.importorskip("torch", reason="PyTorch is the peer")
    assert accelerator.trained_by_torch(1, 3, 8, (2, 20, 3))["step_ms"] > 0


def test_a_case_that_fails_is_kept_and_the_rest_goes_on(tmp_path, capsys):
    record = accelerator.Record(tmp_path / "results.json", tiny=True)

    def fail():
        raise MemoryError("no room | for it")

    record.run({"what": "scan", "entrant": "one"}, fail)
    record.run({"what": "sCIFAR step", "entrant": "two"}, lambda: {"step_ms": 1.0})
    first, second = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert first["failed"] == "MemoryError: no room | for it"
    assert second["step_ms"] == 1
    assert "| scan | one |  | MemoryError: no room / for it |" in accelerator.table([first, second])


def test_after_the_minutes_the_program_ends_in_the_middle_of_a_case(tmp_path, monkeypatch, capsys):
    record, ended = accelerator.Record(tmp_path / "results.json", tiny=True), []
    monkeypatch.setattr(accelerator.os, "_exit", ended.append)

    def long():
        record.end(0.5)
        return {}

    record.run({"what": "scan", "entrant": "one"}, long)
    assert ended == [0]
    first = json.loads((tmp_path / "results.json").read_text())["rows"][0]
    assert first == {"what": "scan", "entrant": "one", "failed": "cut off after 0.5 minutes"}
    assert "| scan | one |  | cut off after 0.5 minutes |" in capsys.readouterr().out


def test_a_program_that_compiles_for_too_long_is_not_run(monkeypatch):
    monkeypatch.setattr(accelerator, "LONGEST_COMPILATION", 0)
    monkeypatch.setattr(accelerator, "repeated", lambda program: pytest.fail("it ran"))
    with pytest.raises(TimeoutError, match="forward took 0 s to compile"):
        accelerator.measured(forward=(lambda: 1.0, ()))
