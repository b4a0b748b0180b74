"""What is installed: the wheel, the locks, and the environments of the scripts."""

import itertools
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

from lru.origins import recipe_names

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = [ROOT / "requirements.txt", *sorted((ROOT / "requirements").glob("*.txt"))]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The files of the wheel in a folder, as pip would put them."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("lru_jax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def files_below(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder) for path in found if "__pycache__" not in path.parts}


def test_the_wheel_has_the_package_and_the_command(installed):
    assert files_below(installed / "lru") == files_below(ROOT / "lru")
    assert {"py.typed", "recipes/quickstart.yaml", "scan/cpu/linear.cc"} < set(
        map(str, files_below(installed / "lru"))
    )
    (information,) = installed.glob("*.dist-info")
    metadata = Parser().parsestr((information / "METADATA").read_text())
    assert metadata["Name"] == "lru-jax"
    assert metadata["License-Expression"] == "MIT"
    commands = (information / "entry_points.txt").read_text().splitlines()
    assert "lru = lru.__main__:program" in commands


def test_what_is_installed_runs_from_any_folder(installed, tmp_path):
    program = (
        "import lru; from lru.commands import main; print(lru.__file__); main(['--version']); "
        "main(['train', '--list'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    origin, version, *listing = done.stdout.splitlines()
    assert origin == str(installed / "lru" / "__init__.py")
    assert version == f"lru {PROJECT['version']}"
    printed = {line.split()[0] for line in listing if line}
    assert set(recipe_names()) <= printed
    assert not list(tmp_path.iterdir())


def test_the_version_is_one_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_requirement_has_a_floor_and_a_locked_version(python):
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.9",
    }
    locked = {}
    for lock in LOCKS:
        for line in lock.read_text().splitlines():
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate(environment):
                (version,) = pin.specifier
                locked.setdefault(pin.name.lower(), {})[lock.stem] = version.version
    extras = PROJECT["optional-dependencies"]
    for extra in ("requirements", *(lock.stem for lock in LOCKS[1:])):
        for text in extras.get(extra, PROJECT["dependencies"]):
            requirement = Requirement(text)
            versions = locked[requirement.name.lower()]
            assert len(set(versions.values())) == 1, requirement
            assert extra != "requirements" or extra in versions
            assert requirement.specifier.contains(*versions.values()), requirement
    for text in itertools.chain(PROJECT["dependencies"], *extras.values()):
        assert {"==", ">="} & {each.operator for each in Requirement(text).specifier}, text
    assert list(locked["wandb"]) == ["wandb"]


@pytest.fixture
def checkout(tmp_path):
    """A checkout with an environment that has no pip, and a Python that would make another."""
    shutil.copytree(ROOT / "bin", tmp_path / "bin")
    (tmp_path / "requirements").mkdir()
    for name in ("pyproject.toml", "requirements.txt", "requirements/test.txt"):
        (tmp_path / name).write_text(f"{name}\n")
    broken = tmp_path / ".venv" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    return tmp_path


def enter(checkout, *, python):
    """Enter the environment as the scripts do, where the system's Python is this program."""
    (checkout / "python").write_text(f"#!/bin/sh\n{python}\n")
    (checkout / "python").chmod(0o755)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "source bin/_environment.sh .venv . && python entered"],
        cwd=checkout,
        env=os.environ | {"PYTHON": "./python"},
        capture_output=True,
        text=True,
    )


def test_an_environment_without_pip_is_made_anew(checkout):
    made = """case "$*" in "-m venv --clear .venv")
        printf '#!/bin/sh\\necho "$*"\\n' >.venv/bin/python
        echo 'PATH=$PWD/.venv/bin:$PATH' >.venv/bin/activate
    esac"""
    done = enter(checkout, python=made)
    assert done.stdout.splitlines() == [
        "installing . into .venv",
        "-m pip install --quiet --constraint=requirements.txt "
        "--constraint=requirements/test.txt --editable .",
        "entered",
    ]
    assert enter(checkout, python="exit 1").stdout == "entered\n"


def test_a_python_that_makes_no_environments_is_said_in_a_sentence(checkout):
    done = enter(checkout, python='case "$*" in *venv*) echo "a long story"; exit 1; esac')
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "./python cannot make .venv: install its venv module (on Debian: apt install "
        "python3-venv), or set PYTHON to another Python\n"
    )
    assert not (checkout / ".venv" / "installed").exists()
