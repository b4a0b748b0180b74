"""Reading exported models: without the code of any model, and nothing but what was written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.export import load
from lru.export.artifact import CARD, STATE, STEP, WHOLE
from lru.export.writer import write_model

ROOT = Path(__file__).parents[2]
B, T, V = 3, 6, 7

# Run by a fresh interpreter around a block of docs/export.md, which reads a folder in its own way.
SCRIPT = """
import sys
import numpy as np
given = np.load(sys.argv[1])
tokens, lengths = given["tokens"], given["lengths"]
{block}
assert [name for name in {unwanted} if name in sys.modules] == []
np.testing.assert_allclose(scores, given["scores"], rtol=1e-4, atol=1e-5)
np.testing.assert_allclose(scores_t, given["last"], rtol=1e-4, atol=1e-5)
print("the same")
"""
WITH_LRU = (
    "from lru.export import load",
    ("flax", "lru.layers", "lru.models", "lru.scan", "lru.training"),
)
WITH_JAX = ("import jax.export", ("flax", "lru"))


def block_with(line):
    """The one code block of the page that has this line."""
    page = (ROOT / "docs" / "export.md").read_text()
    (block,) = (x for x in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if line in x)
    return block


@pytest.fixture(scope="module")
def model(make_classifier):
    return make_classifier()


@pytest.fixture
def folder(model, tmp_path):
    write_model(tmp_path, model, jax.ShapeDtypeStruct((), jnp.int32))
    return tmp_path


@pytest.mark.parametrize(("line", "unwanted"), [WITH_LRU, WITH_JAX], ids=["lru.export", "jax"])
def test_models_are_called_without_their_code(line, unwanted, model, folder):
    tokens = jax.random.randint(jax.random.key(0), (B, T), 0, V)
    lengths = jnp.array([T, 2, 0])
    scores, last = model(tokens, lengths=lengths)[0], model(tokens)[0]
    np.savez(folder / "given.npz", tokens=tokens, lengths=lengths, scores=scores, last=last)
    block = block_with(line).replace("runs/NAME/export", str(folder))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(block=block, unwanted=unwanted), folder / "given.npz"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "the same\n", done.stderr


def test_a_step_is_compiled_once_and_a_state_stays_as_large_as_it_was(folder, compilations):
    exported, symbols = load(folder), [jnp.full(B, t % V) for t in range(20)]
    start = state = exported.initial_state(B)
    compilations.clear()
    _, state = exported.step(symbols[0], state)
    assert compilations
    compilations.clear()
    for symbol in symbols[1:]:
        _, state = exported.step(symbol, state)
    assert not compilations
    assert [leaf.shape for leaf in state] == [leaf.shape for leaf in start]


@pytest.mark.parametrize("name", [WHOLE, STEP, STATE])
def test_another_file_than_the_card_describes_is_refused(name, folder):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=rf"{name} does not have the sha256 of card.json"):
        load(folder)


def test_another_format_is_refused(folder):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"format": 2}))
    with pytest.raises(ValueError, match="has format 2, but only 1 can be read"):
        load(folder)


def test_a_folder_without_a_card_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"card\.json"):
        load(tmp_path)
