"""Reinforcement learning with any layer: PPO (Schulman et al. 2017, arXiv 1707.06347) in a T-maze.

python examples/recurrent_ppo.py [--model lru] [--corridor 10] [--updates 150] [--plot maze.png]

The agent sees a sign, left or right, walks down a corridor whose places all look alike, and has to
turn to the side of the sign at its end (Bakker 2002). Games follow each other in the rows of a
batch: the agent acts by `step`, and learns on whole rows at once, where `resets` marks the first
step of each game. Both give the same, which every update checks.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from flax import nnx
from jax import lax

from lru.layers import LAYERS, make_layer
from lru.scan import linear_scan

ROWS, STEPS, WIDTH, EPOCHS = 64, 64, 32, 4
DISCOUNT, TRACE, CLIP, VALUE, ENTROPY = 0.98, 0.95, 0.2, 0.5, 0.01
FORWARD, LEFT, RIGHT = range(3)


class Maze(NamedTuple):
    """Games [B]: the side of the sign, LEFT or RIGHT, the place, and the steps so far."""

    sign: jax.Array
    place: jax.Array
    time: jax.Array


def new_games(key: jax.Array) -> Maze:
    """A game in each row, at its start."""
    zeros = jnp.zeros(ROWS, int)
    return Maze(jax.random.randint(key, (ROWS,), LEFT, RIGHT + 1), zeros, zeros)


def seen(maze: Maze, corridor: int) -> jax.Array:
    """Observations [B, 4]: left sign, right sign, corridor, junction."""
    signs = (maze.place == 0) & (maze.sign == jnp.array([[LEFT], [RIGHT]]))
    inside = (maze.place > 0) & (maze.place < corridor)
    return jnp.stack([*signs, inside, maze.place == corridor], axis=-1).astype(jnp.float32)


def play(maze: Maze, action: jax.Array, corridor: int, key: jax.Array) -> tuple:
    """The games one step later, with new ones for those that end; rewards and ends [B]."""
    turned = (action != FORWARD) & (maze.place == corridor)
    walked = (action == FORWARD) & (maze.place < corridor)
    # A step against a wall costs something, as does the wrong side.
    reward = jnp.select([turned & (action == maze.sign), turned, walked], [1.0, -1.0, 0.0], -0.1)
    time = maze.time + 1
    end = turned | (time == 3 * corridor)
    after = Maze(maze.sign, maze.place + walked, time)
    return jax.tree.map(partial(jnp.where, end), new_games(key), after), reward, end


class Agent(nnx.Module):
    """A layer between a linear map of what is seen and the logits of actions beside a value."""

    def __init__(self, model: str, rngs: nnx.Rngs):
        self.enter = nnx.Linear(4, WIDTH, rngs=rngs)
        self.layer = make_layer(model, WIDTH, WIDTH, {}, rngs=rngs)
        self.leave = nnx.Linear(WIDTH, 4, rngs=rngs)

    def step(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """Logits and value [B, 4] of observations [B, 4]."""
        y, state = self.layer.step(self.enter(x), state)
        return self.leave(nnx.gelu(y)), state

    def __call__(self, x: jax.Array, state: Any, resets: jax.Array) -> jax.Array:
        """Logits and values [B, T, 4] of whole rows [B, T, 4]."""
        y, _ = self.layer(self.enter(x), state, resets=resets)
        return self.leave(nnx.gelu(y))


def roll_out(agent: Agent, corridor: int, start: tuple, key: jax.Array) -> tuple:
    """Play STEPS steps from games, states and marks of their first steps.

    Returns what to go on from, what happened [B, T, ...], and the value [B] of what comes next.
    """
    fresh = agent.layer.initial_state(ROWS)

    def look(maze: Maze, state: Any, first: jax.Array) -> tuple:
        # As `resets` does: the state is the initial one before the first observation is read.
        state = jax.tree.map(lambda new, old: jnp.where(like(first, new), new, old), fresh, state)
        x = seen(maze, corridor)
        return x, *agent.step(x, state)

    def step(carry: tuple, key: jax.Array) -> tuple:
        maze, _, first = carry
        x, out, state = look(*carry)
        choose, draw = jax.random.split(key)
        action = jax.random.categorical(choose, out[:, :3])
        maze, reward, end = play(maze, action, corridor, draw)
        return (maze, state, end), (x, out, action, reward, first, end)

    carry, happened = lax.scan(step, start, jax.random.split(key, STEPS))
    return carry, jax.tree.map(lambda z: z.swapaxes(0, 1), happened), look(*carry)[1][:, 3]


def like(rows: jax.Array, z: jax.Array) -> jax.Array:
    """Marks of rows [B] with as many axes as z."""
    return rows.reshape(-1, *(1,) * (z.ndim - 1))


def advantages(values: jax.Array, last: jax.Array, reward: jax.Array, end: jax.Array) -> jax.Array:
    """Generalised advantages [B, T] (arXiv 1506.02438, equation 16)."""
    following = jnp.concatenate([values[:, 1:], last[:, None]], axis=1)
    surprise = reward + DISCOUNT * jnp.where(end, 0, following) - values
    # The sum of all that follows in a game, from the last step to the first.
    decay = jnp.where(end, 0, DISCOUNT * TRACE)
    return linear_scan(decay[..., None], surprise[..., None], reverse=True)[0][..., 0]


def chosen(out: jax.Array, action: jax.Array) -> jax.Array:
    """Log probabilities of the actions."""
    return jnp.take_along_axis(jax.nn.log_softmax(out[..., :3]), action[..., None], -1)[..., 0]


def main(words: Sequence[str] | None = None) -> None:
    """Train, print the share of games won, and draw it."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--model", default="lru", choices=list(LAYERS))
    parser.add_argument("--corridor", type=int, default=10, help="places before the junction")
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", help="PNG of the share of games won")
    options = parser.parse_args(words)
    begin, go_on = jax.random.split(jax.random.key(options.seed))
    agent = Agent(options.model, nnx.Rngs(options.seed))
    graphdef, params = nnx.split(agent)
    rule = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(2e-3))

    @jax.jit
    def update(params: Any, moments: Any, start: tuple, key: jax.Array) -> tuple:
        agent = nnx.merge(graphdef, params)
        carry, happened, last = roll_out(agent, options.corridor, start, key)
        x, played, action, reward, first, end = happened
        gain = advantages(played[..., 3], last, reward, end)
        target = gain + played[..., 3]
        gain = (gain - gain.mean()) / (gain.std() + 1e-6)

        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            out = nnx.merge(graphdef, params)(x, start[1], first)
            ratio = jnp.exp(chosen(out, action) - chosen(played, action))
            surrogate = jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * gain)
            logits = jax.nn.log_softmax(out[..., :3])
            entropy = -jnp.sum(jnp.exp(logits) * logits, axis=-1)
            error = (out[..., 3] - target) ** 2
            return jnp.mean(-surrogate + VALUE * error - ENTROPY * entropy), out

        def learn(carry: tuple, _: None) -> tuple:
            params, moments = carry
            grads, out = jax.grad(loss, has_aux=True)(params)
            changes, moments = rule.update(grads, moments, params)
            return (optax.apply_updates(params, changes), moments), out

        (params, moments), replayed = lax.scan(learn, (params, moments), None, EPOCHS)
        # The first pass is made with the parameters that played.
        apart = jnp.max(jnp.abs(replayed[0] - played))
        return params, moments, carry, apart, jnp.sum(reward == 1) / jnp.maximum(jnp.sum(end), 1)

    start = new_games(begin), agent.layer.initial_state(ROWS), jnp.ones(ROWS, bool)
    moments, won = rule.init(params), []
    for number, one in enumerate(jax.random.split(go_on, options.updates), 1):
        params, moments, start, apart, share = update(params, moments, start, one)
        assert apart < 1e-4, f"replayed rows differ from those played by {apart}"
        won.append(float(share))
        if number % 20 == 0:
            print(f"update {number}: {100 * sum(won[-20:]) / 20:.1f} % of games won")
    if options.plot:
        figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
        axis.plot(range(1, len(won) + 1), won)
        axis.set(xlabel="update", ylabel="share of games won", title=f"T-maze, {options.model}")
        axis.grid(alpha=0.3)
        figure.savefig(options.plot, dpi=110)


if __name__ == "__main__":
    main()
