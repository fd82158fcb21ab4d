"""Functions that are called by themselves and inside of others."""

from functools import partial

import jax

compiled = partial(jax.jit, inline=True)
"""`jax.jit`, but a part of what calls it where that is compiled: a program of its own inside of
another one makes its gradient slower to compile."""
