"""Regression forests: grown by scikit-learn, kept as plain arrays."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.learn.batches import in_batches

ROWS = 4096
"""Rows in a compiled call."""


@struct.dataclass
class Trees:
    """``trees(x) -> prediction`` [output] of one row [feature]: the mean of the trees' leaves."""

    feature: Annotated[Array, "tree node"]
    """Which feature a node asks for; a leaf has -1."""
    threshold: Annotated[Array, "tree node"]
    """Rows with at most this go left."""
    left: Annotated[Array, "tree node"]
    """The node that follows; a leaf's own number."""
    right: Annotated[Array, "tree node"]
    value: Annotated[Array, "tree node output"]
    depth: int = struct.field(pytree_node=False)

    def __call__(self, x: Array) -> Array:
        """[output]."""
        trees = jnp.arange(self.feature.shape[0])

        def down(_: Any, node: Array) -> Array:
            asked = x[jnp.maximum(self.feature[trees, node], 0)]
            return jnp.where(
                asked <= self.threshold[trees, node],
                self.left[trees, node], self.right[trees, node],
            )  # fmt: skip

        leaf = jax.lax.fori_loop(0, self.depth, down, jnp.zeros_like(trees))
        return self.value[trees, leaf].mean(axis=0)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """[row, output] of many rows [row, feature]."""
        x = np.asarray(x, np.float32)
        return in_batches(lambda rows: _many(self, x[rows]), len(x), min(ROWS, len(x)))

    def check(self, features: int) -> None:
        """ValueError unless these are trees for rows of so many features."""
        trees, nodes = self.feature.shape
        if not trees or not nodes:
            raise ValueError(f"expected features [tree, node], got shape {self.feature.shape}")
        for name, low, high in (
            ("feature", -1, features - 1), ("left", 0, nodes - 1), ("right", 0, nodes - 1)
        ):  # fmt: skip
            part = np.asarray(getattr(self, name))
            if part.dtype.kind != "i":
                raise ValueError(f"expected integers {name}, got {part.dtype}")
            if part.min() < low or part.max() > high:
                raise ValueError(f"{name} from {part.min()} to {part.max()}, not {low} to {high}")
        if not 0 <= self.depth <= nodes:
            raise ValueError(f"a depth of {self.depth} in trees of {nodes} nodes")


@jax.jit
def _many(trees: Trees, x: Array) -> Array:
    return jax.lax.map(trees, x, batch_size=64)


def of_sklearn(forest: Any) -> Trees:
    """The trees of a fitted `sklearn.ensemble.RandomForestRegressor`."""
    grown = [tree.tree_ for tree in forest.estimators_]
    nodes = max(tree.node_count for tree in grown)
    outputs = grown[0].value.shape[1]
    feature = np.full((len(grown), nodes), -1, np.int32)
    threshold = np.zeros((len(grown), nodes), np.float32)
    left = np.tile(np.arange(nodes, dtype=np.int32), (len(grown), 1))
    right = left.copy()
    value = np.zeros((len(grown), nodes, outputs), np.float32)
    for i, tree in enumerate(grown):
        n = tree.node_count
        inner = tree.children_left >= 0
        feature[i, :n] = np.where(inner, tree.feature, -1)
        # rows have 32 bits: the largest such number not above the threshold divides them alike
        cut = tree.threshold.astype(np.float32)
        cut = np.where(cut > tree.threshold, np.nextafter(cut, np.float32(-np.inf)), cut)
        threshold[i, :n] = cut
        left[i, :n] = np.where(inner, tree.children_left, np.arange(n))
        right[i, :n] = np.where(inner, tree.children_right, np.arange(n))
        value[i, :n] = tree.value[:, :, 0]
    depth = max(tree.max_depth for tree in grown)
    as_jax = jnp.asarray
    return Trees(
        as_jax(feature), as_jax(threshold), as_jax(left), as_jax(right), as_jax(value), depth
    )
