"""Completion by real shells: what they make of words with the cursor behind the last."""

import shutil
import subprocess

import pytest

from lru.commands import main, verbs
from lru.options import first_line

BASH = """
source "$1"
complete -p lru >/dev/null || exit 1
shift
for words in "$@"; do
    read -ra COMP_WORDS <<<"$words"
    [[ $words != *" " ]] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    _shtab_lru lru "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
    echo "${COMPREPLY[*]}"
done
"""

# A terminal of its own, in which `lru` prints its words instead of running.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "fpath=(${1:h} \$fpath); autoload -Uz compinit; compinit -u -D"
zpty -w shell "lru() { print -r -- \"<\$*>\" }"
shift
for words in "$@"; do
    zpty -w shell "$words"$'\t'
    zpty -r shell printed $'*\n<*>'
    print -r -- "${printed##*$'\n'}"
done
"""


def completed(shell, program, place, capsys, *lines):
    """What the shell makes of each line."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} needed")
    assert main(["completion", shell]) == 0
    place.write_text(capsys.readouterr().out)
    (place.parent / "data.py").touch()
    done = subprocess.run(
        [shell, *(["-f"] if shell == "zsh" else []), "-c", program, shell, place, *lines],
        cwd=place.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_verb_has_a_sentence_and_a_command_line():
    for name, verb in verbs().items():
        assert first_line(verb).endswith(".")
        if name != "train":
            assert verb.parser().prog == f"lru {name}"


def test_bash_completes_verbs_flags_names_and_files(tmp_path, capsys):
    cases = {
        "lru da": "data",
        "lru data ": "list download prepare verify stats show",
        "lru data prepare wikitext": "wikitext2-lm wikitext103-lm",
        "lru train --rec": "--recipe",
        "lru train --recipe quick": "quickstart",
        "lru train --model diag-rnn --r_m": "--r_min --r_max",
        "lru train --data_options a=1 b=2 --model qr": "qrnn",
        "lru train --norm ": "batch layer",
        "lru train --cosine_anneal ": "True False",
        "lru train --plugins da": "data.py",
        "lru export --l": "--lane",
        "lru completion ": "bash zsh",
    }
    printed = completed("bash", BASH, tmp_path / "lru", capsys, *cases)
    assert dict(zip(cases, printed, strict=True)) == cases


def test_zsh_completes_verbs_flags_names_and_files(tmp_path, capsys):
    cases = {
        "lru da": "<data>",
        "lru data prepare wikitext2": "<data prepare wikitext2-lm>",
        "lru train --recipe quick": "<train --recipe quickstart>",
        "lru train --data_options a=1 --model qr": "<train --data_options a=1 --model qrnn>",
        "lru train --plugins da": "<train --plugins data.py>",
        "lru export --lan": "<export --lane>",
    }
    printed = completed("zsh", ZSH, tmp_path / "_lru", capsys, *cases)
    assert dict(zip(cases, printed, strict=True)) == cases
