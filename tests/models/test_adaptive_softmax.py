"""Adaptive softmax beside PyTorch's, recorded values of a tied one, and its own whole table."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.models import adaptive_softmax
from lru.models.adaptive_softmax import AdaptiveSoftmax

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "qrnn_reference.npz")

D, V, CUTOFFS = 12, 50, (8, 20, 35)
B, T = 4, 9


@pytest.fixture(scope="module")
def drawn():
    """Features, targets that include all bounds, and an embedding."""
    rng = np.random.default_rng(0)
    targets = rng.integers(V, size=(B, T))
    targets[0, :8] = [0, 7, 8, 19, 20, 34, 35, 49]
    arrays = (rng.normal(size=(B, T, D)), targets, rng.normal(size=(V, D)))
    return [jnp.asarray(x, jnp.int32 if x.dtype == int else jnp.float32) for x in arrays]


def build(**options):
    options = {
        "d_model": D,
        "vocab_size": V,
        "cutoffs": CUTOFFS,
        "div_value": 2.0,
        "bias": True,
    } | options
    return AdaptiveSoftmax(**options, rngs=nnx.Rngs(0))


def chosen(table, targets):
    return np.take_along_axis(np.asarray(table), np.asarray(targets)[..., None], -1)[..., 0]


run = jax.jit(lambda model, x, targets, embedding=None: model(x, targets, embedding))
table_of = jax.jit(lambda model, x, embedding=None: model.log_probs(x, embedding))


@jax.jit
def loss_and_gradients(model, x, targets, embedding):
    def loss(model, x, embedding):
        return -model(x, targets, embedding).sum()

    return jax.value_and_grad(loss, argnums=(0, 1, 2))(model, x, embedding)


def test_values_and_gradients_are_those_of_pytorch(drawn):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, targets, _ = drawn
    ours = build()
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(D, V, CUTOFFS, div_value=2.0, head_bias=True)
    weight = theirs.head.weight.detach().numpy().T
    ours.words[...], ours.clusters[...] = weight[:, : CUTOFFS[0]], weight[:, CUTOFFS[0] :]
    for i, (first, second) in enumerate(theirs.tail):
        ours.down[i][...] = first.weight.detach().numpy().T
        ours.up[i][...] = second.weight.detach().numpy().T
    # Only words of the head have a bias there.
    bias = theirs.head.bias.detach().numpy()
    ours.bias[...] = ours.bias[...].at[: CUTOFFS[0]].set(bias[: CUTOFFS[0]])
    ours.cluster_bias[...] = bias[CUTOFFS[0] :]
    flat = torch.tensor(np.asarray(x).reshape(-1, D), requires_grad=True)
    output = theirs(flat, torch.tensor(np.asarray(targets).reshape(-1), dtype=torch.long))
    (-output.output.sum()).backward()
    loss, (grads, grad_x, _) = loss_and_gradients(ours, x, targets, None)
    np.testing.assert_allclose(loss, -output.output.sum().item(), rtol=1e-6)
    np.testing.assert_allclose(
        run(ours, x, targets).reshape(-1), output.output.detach(), rtol=1e-5, atol=1e-5
    )
    table = theirs.log_prob(flat).detach()
    np.testing.assert_allclose(table_of(ours, x).reshape(-1, V), table, rtol=1e-5, atol=1e-5)
    bias = np.concatenate([grads.bias[: CUTOFFS[0]], grads.cluster_bias[...]])
    pairs = [(grad_x.reshape(-1, D), flat.grad), (bias, theirs.head.bias.grad)]
    head = jnp.concatenate([grads.words[...], grads.clusters[...]], axis=1)
    pairs.append((head.T, theirs.head.weight.grad))
    for i, (first, second) in enumerate(theirs.tail):
        pairs.append((grads.down[i][...].T, first.weight.grad))
        pairs.append((grads.up[i][...].T, second.weight.grad))
    for mine, other in pairs:
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_recorded_values_and_gradients_with_all_words_tied():
    recorded = {
        name.removeprefix("splitce/one_tail/"): jnp.asarray(RECORDED[name])
        for name in RECORDED
        if name.startswith("splitce/one_tail/")
    }
    model = AdaptiveSoftmax(5, 20, [6], tied=True, bias=True, rngs=nnx.Rngs(0))
    model.bias[...] = recorded["b"]
    model.clusters[...] = recorded["tail_vectors"].T
    model.cluster_bias[...] = recorded["tail_bias"]
    x, targets, n = recorded["h"][None], recorded["targets"][None], len(recorded["targets"])
    loss, (grads, grad_x, grad_words) = loss_and_gradients(model, x, targets, recorded["W"])
    np.testing.assert_allclose(loss / n, recorded["loss"], atol=1e-6)
    table = table_of(model, x, recorded["W"])
    np.testing.assert_allclose(table[0], recorded["logprob"], atol=1e-5)
    for mine, name in (
        (grad_words, "W"),
        (grad_x[0], "h"),
        (grads.bias[...], "b"),
        (grads.clusters[...].T, "tail_vectors"),
        (grads.cluster_bias[...], "tail_bias"),
    ):
        np.testing.assert_allclose(mine / n, recorded[f"g{name}"], atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_the_table_sums_to_one_and_holds_the_targets(drawn, tied):
    x, targets, embedding = drawn
    if not tied:
        embedding = None
    model = build(tied=tied)
    table = table_of(model, x, embedding)
    assert table.shape == (B, T, V)
    np.testing.assert_allclose(np.exp(table).sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        run(model, x, targets, embedding), chosen(table, targets), rtol=1e-5, atol=1e-5
    )


def test_no_targets_have_no_log_probabilities(drawn):
    x, targets, _ = drawn
    x, targets = x.reshape(-1, x.shape[-1])[:0], targets.reshape(-1)[:0]
    _, gradients = loss_and_gradients(build(), x, targets, None)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_many_chunks_are_as_one(drawn, monkeypatch):
    x, targets, _ = drawn
    whole = loss_and_gradients(build(), x, targets, None)
    monkeypatch.setattr(adaptive_softmax, "_CHUNK", 5)
    # Wrapped anew, as the compiled function has the old size in it.
    again = jax.jit(lambda *arguments: loss_and_gradients.__wrapped__(*arguments))
    chunks = again(build(), x, targets, None)
    for one, many in zip(*map(jax.tree.leaves, (whole, chunks)), strict=True):
        np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-5)


def test_targets_of_the_head_leave_the_clusters_alone(drawn):
    x, targets, _ = drawn
    _, (grads, _, _) = loss_and_gradients(build(), x, targets % CUTOFFS[0], None)
    assert all(not leaf.any() for leaf in jax.tree.leaves((grads.up, grads.down)))
    assert grads.clusters[...].any()


def test_each_cluster_has_fewer_features():
    assert [weights.shape for weights in build(div_value=4.0).up] == [(3, 12), (1, 15), (1, 15)]


def test_half_precision_features_have_single_log_probabilities(drawn):
    x, targets, _ = drawn
    assert run(build(), x.astype(jnp.bfloat16), targets).dtype == jnp.float32


@pytest.mark.parametrize("cutoffs", [[], [0, 5], [5, 5], [9, 5], [50], [5, 51]])
def test_cutoffs_that_do_not_rise_are_refused(cutoffs):
    with pytest.raises(ValueError, match="cutoffs must be one or more ids that rise") as error:
        build(cutoffs=cutoffs)
    assert "less than vocab_size = 50" in str(error.value)
    assert str(error.value).endswith(f"got {cutoffs}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 0}, "d_model must be at least 1, got 0"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"div_value": 0.5}, "div_value must be at least 1, got 0.5"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_arguments_must_fit(drawn):
    x, targets, embedding = drawn
    with pytest.raises(ValueError, match=r"d_model = 12, got shape \(4, 9, 11\)"):
        build()(x[..., 1:], targets)
    with pytest.raises(ValueError, match=r"embedding must be None, got \(50, 12\)"):
        build()(x, targets, embedding)
    for given in (None, embedding[1:]):
        with pytest.raises(ValueError, match=r"embedding must be \(50, 12\), got"):
            build(tied=True).log_probs(x, given)
