"""Weights as one vector, which is how files keep them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array

Weights = TypeVar("Weights")

LARGEST_SIZE = 10**6
"""Of anything in a network."""

MOST_SIZES = 64
"""In a list of sizes."""


def check_sizes(sizes: Any) -> None:
    """ValueError for sizes, in lists and dictionaries of any depth, that no network has."""
    if isinstance(sizes, dict):
        sizes = list(sizes.values())
    if isinstance(sizes, list | tuple):
        if len(sizes) > MOST_SIZES:
            raise ValueError(f"expected at most {MOST_SIZES} sizes, got {len(sizes)}")
        for size in sizes:
            check_sizes(size)
    elif isinstance(sizes, int | float) and not abs(sizes) <= LARGEST_SIZE:
        raise ValueError(f"expected sizes of at most {LARGEST_SIZE}, got {sizes}")


def restorer(make: Callable[[], Weights]) -> Callable[[Any], Weights]:
    """What makes weights of one vector of them, the inverse of `jax.flatten_util.ravel_pytree`.

    Args:
        make: gives weights of the same shapes; it is traced, so that sizes that a file declares
            take no memory before they are compared with the vector that it holds.

    The function that is returned raises ValueError for a vector of another length.
    """
    leaves, structure = jax.tree.flatten(jax.eval_shape(make))
    sizes = [math.prod(leaf.shape) for leaf in leaves]

    def restore(flat: Any) -> Weights:
        flat = np.asarray(flat)
        if flat.shape != (sum(sizes),):
            raise ValueError(f"expected {sum(sizes)} weights, got an array of shape {flat.shape}")
        parts = np.split(flat, np.cumsum(sizes)[:-1]) if sizes else []
        whole: list[Array] = [
            jax.numpy.asarray(part.reshape(leaf.shape), leaf.dtype)
            for part, leaf in zip(parts, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, whole)

    return restore
