import os
import subprocess
import sys
from pathlib import Path

import pytest

from lru.dataloaders import DATASETS
from lru.dataloaders.__main__ import main
from lru.dataloaders.copying import Copy
from lru.dataloaders.fetch import MIRROR_VARIABLE

ROOT = Path(__file__).parents[2]


def test_list_names_every_data_set_and_its_options(capsys):
    main(["list"])
    printed = capsys.readouterr().out
    for name in DATASETS:
        assert f"\n{name}: " in f"\n{printed}"
    assert "pattern_length=10" in printed


def test_prepare_describes_what_it_made(capsys, tmp_path):
    options = ["--option", "n_train=1_000", "--option", "n_val=3", "--option", "n_test=4"]
    folders = ["--raw_dir", str(tmp_path), "--cache_dir", str(tmp_path / "cache")]
    main(["prepare", "copy-classification", *folders, *options])
    printed = capsys.readouterr().out
    folder = Copy(n_train=1000, n_val=3, n_test=4).folder(tmp_path / "cache")
    assert f"copy-classification: {folder}\n" in printed
    assert "train: 1,000 rows of 120 steps" in printed
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "nothing"], "unknown data set 'nothing'; known: .*copy-classification"),
        (["prepare", "copy-classification", "--option", "delay"], "'delay' is not KEY=VALUE"),
        (["prepare", "copy-classification", "--option", "delay=x"], "must be a whole number"),
        (["download", "nothing"], "unknown data set 'nothing'"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(arguments)


def test_download_all_goes_on_after_failures_and_fails_at_the_end(tmp_path):
    environment = os.environ | {MIRROR_VARIABLE: "http://127.0.0.1:9", "PYTHON": sys.executable}
    done = subprocess.run(
        [ROOT / "bin" / "download_all.sh", "--raw_dir", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "mnist-classification: cannot download http://127.0.0.1:9/MNIST/raw/" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("not downloaded: ")
    assert "mnist-classification" in line
