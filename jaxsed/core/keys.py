"""Random keys: what is taken for one, and how new ones are made from it.

In JAX ``split(key)[i]`` is ``fold_in(key, i)``, so a key must not be both split and folded.  In
this package a key is used once: it makes random numbers, or it is split, or it is handed to one
function.  Only a key from which an open-ended number of others is counted off is not split: it is
folded with numbers that differ, and with nothing else.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def typed_keys(keys: Any) -> Array:
    """Typed keys of any shape, from those of `jax.random.key` or of the older `PRNGKey`.

    The words of a `PRNGKey` are the last axis, of 32-bit unsigned integers.

    Raises ValueError for anything else.
    """
    kind = getattr(keys, "dtype", None)
    if kind is not None and jnp.issubdtype(kind, jax.dtypes.prng_key):
        return keys
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    if kind is not None and kind == np.uint32 and keys.shape[-len(words) :] == words:
        return jax.random.wrap_key_data(jnp.asarray(keys))
    found = type(keys).__name__ if kind is None else f"{kind} of shape {keys.shape}"
    raise ValueError(f"expected a random key, as jax.random.key(0) makes them, got {found}")


def typed_key(key: Any) -> Array:
    """One typed key; see `typed_keys`.

    Raises ValueError for anything else, an array of several keys included.
    """
    typed = typed_keys(key)
    if typed.ndim:
        raise ValueError(f"expected one random key, got an array of them, {typed.shape}")
    return typed
