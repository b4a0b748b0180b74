"""Programs for other machines: the plain loop in place of every other method.

The other methods may call a library of this machine, ask for its devices or need T as a number.
"""

from contextlib import AbstractContextManager

import jax

# Part of the key of JAX's caches: nothing that was traced outside is used inside.
_portable = jax.make_user_context(False)


def portable() -> AbstractContextManager[None]:
    """Within it, every scan that is traced runs as `sequential`, whatever method it asks for.

    All methods solve the same problem, so what is computed does not change; T and B may be
    symbolic, and the program is plain StableHLO for any platform.
    """
    return _portable(True)


def is_portable() -> bool:
    """True while programs for other machines are being traced."""
    return _portable.value
