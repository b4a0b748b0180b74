"""Texts written by a run's model: those of its own distribution, in the units of the data set."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.commands import main, run_train
from lru.export import load
from lru.models.body import Body
from lru.models.sampling import Sampler
from lru.text import draw_gates, write
from lru.text.loading import load_text
from lru.training.runs import Run

GREEDY = Sampler(temperature=0.0)


def probabilities(loaded, tokens):
    """Log probabilities of what comes after each token, read as a whole from a line's start."""
    ids = [loaded.boundary, *(loaded.vocabulary.index(token) for token in tokens)]
    return jax.jit(lambda ids: loaded.model(ids)[0][0])(jnp.array([ids]))


def test_the_most_probable_text_is_that_of_the_whole_model(loaded):
    written = write(loaded, "to b", 40, GREEDY, seed=0)
    assert written.text == "".join(written.tokens)
    assert written.text.startswith("to b")
    assert len(written.tokens) == 44
    best = np.argmax(probabilities(loaded, written.tokens), axis=-1)
    assert [loaded.vocabulary[token] for token in best[4:-1]] == written.tokens[4:]


def test_the_seed_decides_and_an_empty_prompt_begins_a_line(loaded):
    texts = [write(loaded, "", 60, Sampler(), seed).text for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 60


def test_draws_follow_the_distribution(loaded):
    first = [write(loaded, "to be o", 1, Sampler(), seed).tokens[-1] for seed in range(60)]
    expected = np.exp(probabilities(loaded, "to be o")[-1])
    found = np.array([first.count(token) / len(first) for token in loaded.vocabulary])
    # Half the sum of differences, for 60 draws of a distribution of few likely tokens.
    assert np.abs(found - expected).sum() / 2 < 0.25


def test_gates_are_those_that_make_the_outputs(loaded, tmp_path):
    x = loaded.model.embedding[...][jnp.array([[0, 3, 5, 1, 2]])]
    body = loaded.model.body
    (h, states), observed = jax.jit(lambda x: (body(x), body.observe(x)))(x)
    for cell, found, state in zip(body.cells, observed, states, strict=True):
        before = jnp.pad(found["state"], ((0, 0), (1, 0), (0, 0)))[:, :-1]
        mixed = found["forget_gate"] * before + (1 - found["forget_gate"]) * found["candidate"]
        np.testing.assert_allclose(found["state"], mixed, atol=1e-6)
        np.testing.assert_allclose(found["state"][:, -1], state.c, atol=1e-6)
        assert found["forget_gate"].shape == (1, 5, cell.d_hidden)
    assert h.shape == (1, 5, 8)
    pictures = draw_gates(loaded, list("to be"), tmp_path)
    assert [picture.name for picture in pictures] == ["gates-1.png", "gates-2.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_the_command_writes_and_draws(qrnn_run, capsys):
    command = ["generate", str(qrnn_run), "--prompt", "that is", "--n_tokens", "12"]
    assert main([*command, "--temperature", "0", "--plot_gates"]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(r"that is.{12}\n", printed.out, flags=re.DOTALL)
    assert (qrnn_run / "plots" / "gates-1.png").is_file()
    assert str(qrnn_run / "plots" / "gates-2.png") in printed.err


def test_an_exported_run_reads_as_the_model_does(loaded, qrnn_run, tmp_path):
    assert main(["export", str(qrnn_run), "--out", str(tmp_path)]) == 0
    exported = load(tmp_path)
    assert exported.card["vocabulary"] == loaded.vocabulary
    tokens = loaded.encode("to be or not")
    expected = probabilities(loaded, "to be or not")
    whole = exported.whole(tokens.astype(np.int32), np.array([tokens.shape[1]], np.int32))
    np.testing.assert_allclose(whole[0], expected, rtol=1e-4, atol=1e-5)
    state = exported.initial_state(1)
    for t, scores in enumerate(expected):
        outputs, state = exported.step(tokens[:, t].astype(np.int32), state)
        np.testing.assert_allclose(outputs[0], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "to be?"], "prompt must have none but the 14 tokens of the vocabulary, "),
        (["--temperature", "-1"], "temperature must be finite and not negative, got -1.0"),
        (["--top_k", "0"], "top_k must be at least 1, got 0"),
        (["--top_p", "0"], r"top_p must be in \(0, 1\], got 0.0"),
        (["--seed", "-1"], "seed must be from 0 to 4294967295, got -1"),
        (["--seed", "4294967297"], "seed must be from 0 to 4294967295, got 4294967297"),
        (["--n_tokens", "-1"], "n_tokens must not be negative, got -1"),
        (["--n_tokens", "0", "--plot_gates"], "prompt must have a token to draw gates against"),
    ],
)
def test_bad_arguments_are_one_clear_sentence(qrnn_run, capsys, arguments, message):
    assert main(["generate", str(qrnn_run), *arguments]) == 2
    error = capsys.readouterr().err
    assert re.match(f"lru generate: {message}", error)
    assert len(error.splitlines()) == 1


def test_any_body_writes_and_any_cell_has_states_to_draw(make_run):
    for model, drawn in (("lru", []), ("gru", ["--plot_gates"])):
        folder = make_run(model, "--model", model, "--max_steps", "1")
        command = ["generate", str(folder), "--n_tokens", "5", "--prompt", "to"]
        assert main([*command, *drawn]) == 0
    pictures = sorted(path.name for path in (folder / "plots").iterdir())
    assert pictures == ["gates-1.png", "gates-2.png"]
    assert load_text(Run(folder)).card.name == "shakespeare-lm"


def test_a_body_that_cannot_be_observed_writes_but_draws_nothing(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(type(loaded.model.body), "observe", Body.observe)
    assert write(loaded, "to", 3, GREEDY, seed=0).tokens[:2] == ["t", "o"]
    with pytest.raises(ValueError, match="can be observed, got a body of Cells with model 'qrnn'"):
        draw_gates(loaded, ["t"], tmp_path)


def test_a_data_set_that_cuts_no_texts_is_refused(loaded):
    config = loaded.trained.config
    data = replace(config.data, dataset="adding-classification", data_options={})
    trained = loaded.trained._replace(config=replace(config, data=data))
    with pytest.raises(ValueError, match=r"must extend lru\.dataloaders\.Characters or Words"):
        write(loaded._replace(trained=trained), "to", 1, GREEDY, seed=0)


def test_runs_on_other_data_are_refused(tmp_path, capsys):
    flags = [
        *("--dataset", "copy-classification", "--model", "lru", "--n_layers", "1"),
        *("--data_options", "n_train=8", "n_val=8", "n_test=8", "delay=3", "n_symbols=3"),
        *("--d_model", "4", "--d_hidden", "4", "--max_steps", "1", "--plots", "False"),
        *("--runs_dir", str(tmp_path), "--dir_name", str(tmp_path / "c"), "--name", "copy"),
    ]
    assert run_train(flags) == 0
    assert main(["generate", str(tmp_path / "copy")]) == 2
    assert "must be one on a text (a data set of kind text)" in capsys.readouterr().err
