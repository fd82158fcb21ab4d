"""Uses of a galaxy's random key.

Its key is never split but folded with the use and then with the number of the segment or run, so
that no two uses meet.
"""

from typing import Any

import jax
from jax import Array

from jaxsed.core.types import Key

BEGIN, SEGMENT, LEARNING, SINGLE_CALL, FLOW = range(5)


def numbered(key: Key, use: int, number: Any) -> Array:
    """The key of a galaxy for one of its uses, such as its nth segment."""
    return jax.random.fold_in(jax.random.fold_in(key, use), number)
