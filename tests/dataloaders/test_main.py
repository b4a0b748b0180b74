import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from lru.dataloaders import DATASETS, Dataset
from lru.dataloaders.__main__ import main
from lru.dataloaders.base import Description, register
from lru.dataloaders.files.fetch import MIRROR_VARIABLE, sha256_of
from lru.dataloaders.sets.copying import Copy
from lru.dataloaders.sets.mnist import Mnist
from lru.dataloaders.store.writers import RaggedWriter

from .sets.test_idx import NAMES as MNIST_NAMES
from .sets.test_idx import write as write_mnist

ROOT = Path(__file__).parents[2]


def test_list_names_every_data_set_and_its_options(capsys):
    main(["list"])
    printed = capsys.readouterr().out
    for name, kind in DATASETS.items():
        assert f"\n{', '.join((name, *kind.aliases))}: " in f"\n{printed}"
    assert "pattern_length=10" in printed
    for kind in DATASETS.values():
        assert not kind.variants or f"    by options: {', '.join(kind.variants)}\n" in printed


def test_prepare_describes_what_it_made(capsys, tmp_path):
    options = ["--option", "n_train=1_000", "--option", "n_val=3", "--option", "n_test=4"]
    folders = ["--raw_dir", str(tmp_path), "--cache_dir", str(tmp_path / "cache")]
    main(["prepare", "copy-classification", *folders, *options])
    printed = capsys.readouterr().out
    folder = Copy(n_train=1000, n_val=3, n_test=4).folder(tmp_path / "cache")
    assert f"copy-classification: {folder}\n" in printed
    assert "train: 1,000 rows of 120 steps" in printed
    assert folder.is_dir()


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Flags for folders of the test's own."""
    return ["--raw_dir", str(tmp_path / "raw"), "--cache_dir", str(tmp_path / "cache")]


SMALL = ["--option", "n_train=30", "--option", "n_val=3", "--option", "n_test=4"]


def test_verify_checks_what_is_there_and_makes_nothing(capsys, tmp_path, folders):
    with pytest.raises(SystemExit, match="copy-classification is not prepared: there is no"):
        main(["verify", "copy-classification", *folders, *SMALL])
    assert not (tmp_path / "cache").exists()
    main(["prepare", "copy-classification", *folders, *SMALL])
    main(["verify", "copy-classification", *folders, *SMALL])
    assert "is what its card says" in capsys.readouterr().out
    (values,) = (tmp_path / "cache").glob("*/test.values.npy")
    content = bytearray(values.read_bytes())
    content[-1] ^= 1
    values.write_bytes(content)
    with pytest.raises(SystemExit, match="error: the cached data set is damaged"):
        main(["verify", "copy-classification", *folders, *SMALL])


def test_stats_counts_classes_and_lengths(capsys, folders):
    main(["stats", "copy-classification", *folders, *SMALL])
    printed = capsys.readouterr().out
    assert "    train by class: 0 " in printed
    counts = printed.split("test by class: ")[1].splitlines()[0].split(", ")
    assert sum(int(count.split()[1]) for count in counts) == 4 * 10
    assert "    11 ids: <pad> 0 1 2 3 4 5 6 7 <blank> <go>" in printed
    assert "    120 to     120         30  " in printed
    assert Path(printed.splitlines()[-1].strip()).exists()


def test_show_prints_text_and_saves_images(capsys, tmp_path, folders):
    main(["show", "copy-classification", "--index", "2", "0", "--split", "val", *folders, *SMALL])
    printed = capsys.readouterr().out
    assert "copy-classification, val 2\nlabels: - " in printed
    assert "120 tokens:\n" in printed
    write_mnist(tmp_path / "raw")
    main(["show", "mnist-classification", "--option", "n_val=2", "--split", "test", *folders])
    first, label, picture = capsys.readouterr().out.splitlines()
    assert (first, label) == ("mnist-classification, test 0", "label: 0")
    assert Path(picture).name.endswith(".test.0.png")
    assert Path(picture).exists()


def test_a_row_or_split_that_is_not_there_is_named(folders):
    with pytest.raises(SystemExit, match=r"--split is 'dev', but copy-.* has train, val, test"):
        main(["show", "copy-classification", "--split", "dev", *folders, *SMALL])
    with pytest.raises(SystemExit, match="--index is 3, but val has rows 0 to 2"):
        main(["show", "copy-classification", "--index", "3", "--split", "val", *folders, *SMALL])


def test_download_takes_a_mirror(capsys, tmp_path, site):
    site.files = {f"m/MNIST/raw/{name}.gz": b"" for name in MNIST_NAMES}
    arguments = ["download", "mnist-classification", "--mirror", f"{site.url}/m"]
    with pytest.raises(SystemExit, match="not downloaded: mnist-classification"):
        main([*arguments, "--raw_dir", str(tmp_path)])
    assert "has sha256 e3b0c442" in capsys.readouterr().out
    assert site.requests == [(f"/m/MNIST/raw/{MNIST_NAMES[0]}.gz", None)]


def test_what_is_made_can_be_fetched_from_a_mirror(capsys, monkeypatch, tmp_path, folders):
    write_mnist(tmp_path / "my mirror", Mnist.places[0], compress=True)
    at_mirror = tmp_path / "my mirror" / Mnist.places[0]
    sources = [
        dataclasses.replace(source, sha256=sha256_of(at_mirror / Path(source.filename).name))
        for source in Mnist.sources
    ]
    monkeypatch.setattr(Mnist, "sources", tuple(sources))
    mirror = ["--mirror", str(tmp_path / "my mirror")]
    main(["prepare", "mnist-classification", "--option", "n_val=2", *folders, *mirror])
    assert "mnist-classification: " in capsys.readouterr().out
    for verb in ("stats", "show"):
        with pytest.raises(SystemExit, match=r"error: --mirror or .* got 'nowhere'"):
            main([verb, "pmnist-classification", "--mirror", "nowhere", "--raw_dir", str(tmp_path)])


def test_data_sets_outside_the_package_have_all_verbs(capsys, monkeypatch, tmp_path, folders):
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    plugin = ["--plugins", str(shutil.copy(ROOT / "examples" / "own_dataset.py", tmp_path))]
    main(["list", *plugin])
    assert "\nwaves: Tell the period of a noisy wave." in capsys.readouterr().out
    for verb in ("prepare", "verify", "stats", "show"):
        main([verb, "waves", *folders, "--option", "n_train=20", *plugin])
        assert "waves" in capsys.readouterr().out
    main(["download", "waves", *folders[:2], *plugin])
    assert capsys.readouterr().out == "waves: nothing to download\n"


@dataclasses.dataclass(frozen=True)
class Sounds(Dataset):
    """Rows of 1 to 3 steps, with a value to be predicted at all steps but the first."""

    name: ClassVar[str] = "sounds"
    split_names: ClassVar[tuple[str, ...]] = ("train", "loud")

    def build(self, raw_dir, folder):
        for split in self.split_names:
            with RaggedWriter(
                folder, split, np.float32, steps=3, n_features=2, n_targets=1
            ) as writer:
                labels = [[[np.nan]] * 3, [[np.nan], [0.5], [np.nan]], [[np.nan], [1.5], [2.5]]]
                writer.append(np.ones((6, 2)), np.array([1, 2, 3]), np.array(labels))
        return Description("values", 0, "values_per_step", "Written down.", "With itself.")


def test_all_verbs_know_values_of_several_lengths_to_be_predicted(capsys, monkeypatch, folders):
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    register(Sounds)
    main(["prepare", "sounds", *folders])
    printed = capsys.readouterr().out
    assert "values (2 features), targets of size 1, one a step" in printed
    assert "    loud: 3 rows of 1 to 3 steps, mean 2.0" in printed
    main(["verify", "sounds", *folders])
    main(["stats", "sounds", *folders])
    printed = capsys.readouterr().out
    assert "    mean 1.0000 1.0000\n" in printed
    assert "    mean of targets 1.5000\n" in printed
    assert "by class" not in printed
    main(["show", "sounds", "--split", "loud", "--index", "1", *folders])
    assert "sounds, loud 1\nlabels: - 0.5 -\n2 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "nothing"], "unknown data set 'nothing'; known: .*copy-classification"),
        (["prepare", "copy-classification", "--option", "delay"], "'delay' is not KEY=VALUE"),
        (["prepare", "copy-classification", "--option", "delay=x"], "must be a whole number"),
        (["list", "--plugins", "nowhere.py"], "plugins: there is no file nowhere.py"),
        (["download", "nothing"], "unknown data set 'nothing'"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(arguments)


def test_download_all_goes_on_after_failures_and_fails_at_the_end(tmp_path):
    environment = os.environ | {MIRROR_VARIABLE: "http://127.0.0.1:9", "LRU_PYTHON": sys.executable}
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


def test_the_scripts_download_data_sets_that_there_are(tmp_path):
    scripts = sorted((ROOT / "bin").glob("download_*.sh"))
    assert {"download_all.sh", "download_lra.sh", "download_aan.sh"} <= {s.name for s in scripts}
    downloaded = set()
    for script in scripts:
        (command,) = re.findall(r"^exec .*?\"\$@\"$", script.read_text(), re.DOTALL | re.MULTILINE)
        names = re.findall(r"[a-z0-9-]+-(?:classification|lm)|speech-commands", command)
        assert script.name == "download_all.sh" or names
        assert all(DATASETS[name].sources for name in names), script.name
        assert os.access(script, os.X_OK)
        downloaded.update(source for name in names for source in DATASETS[name].sources)
    assert downloaded == {source for kind in DATASETS.values() for source in kind.sources}
    done = subprocess.run(
        [ROOT / "bin" / "download_aan.sh", "--raw_dir", tmp_path, "--mirror", "http://127.0.0.1:9"],
        env=os.environ | {"LRU_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "not downloaded: aan-classification\n"
    assert "cannot download http://127.0.0.1:9/lra_release.gz" in done.stdout


def test_the_scripts_make_their_environment_and_stay_in_the_folder_of_the_caller(tmp_path):
    repository, caller = tmp_path / "repository", tmp_path / "caller"
    caller.mkdir()
    shutil.copytree(ROOT / "bin", repository / "bin")
    # An environment that is up to date, whose interpreter says where it is and what it is to do.
    environment = repository / ".venv"
    (environment / "bin").mkdir(parents=True)
    (repository / "requirements").mkdir()
    for name in ("pyproject.toml", "requirements.txt", "requirements/test.txt"):
        (repository / name).write_text("")
    (environment / "installed").write_text("")
    (environment / "bin" / "activate").write_text(f'PATH="{environment}/bin:$PATH"\n')
    python = environment / "bin" / "python"
    python.write_text('#!/usr/bin/env bash\necho "$PWD: $*"\n')
    python.chmod(0o755)

    def told(script: str, *arguments: str) -> str:
        """What the environment's interpreter is told, though PYTHON names another to make it of."""
        variables = os.environ | {"PYTHON": "/bin/false"}
        variables.pop("LRU_PYTHON", None)
        path = os.path.relpath(repository / "bin" / script, caller)
        return subprocess.run(
            [path, *arguments],
            cwd=caller,
            env=variables,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    verb = f"{caller}: -m lru.dataloaders download"
    assert told("download_mnist.sh", "--raw_dir", "here") == (
        f"{verb} mnist-classification --raw_dir here\n"
    )
    assert told("download_all.sh", "--raw_dir=here") == f"{verb} --raw_dir=here\n"
    assert told("download_mnist.sh") == (
        f"{verb} mnist-classification --raw_dir {repository}/raw_datasets\n"
    )
