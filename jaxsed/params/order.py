"""Priors as pytrees whose leaves have one order in every process.

NumPyro takes the parameters of a distribution in the order of a Python set, which changes with the
hash seed of the process.  Compiled programs are kept on disk by the order of their arguments, so a
new process would find none of those that take a prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpyro.distributions as dist

from jaxsed.core.types import PyTree


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Ordered:
    """A distribution in parts: JAX takes the values of a dictionary in the order of its keys."""

    kind: type[dist.Distribution]
    parameters: dict[str, Any]
    static: tuple[tuple[str, Any], ...]
    """What is no array, by name."""

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Any, ...]]:
        """For JAX."""
        return (self.parameters,), (self.kind, self.static)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: tuple[Any]) -> Ordered:
        """For JAX."""
        return cls(static[0], children[0], static[1])


def ordered(tree: PyTree) -> PyTree:
    """A pytree with its distributions, at any depth, as `Ordered`."""
    return jax.tree.map(_ordered, tree, is_leaf=lambda node: isinstance(node, dist.Distribution))


def restored(tree: PyTree) -> PyTree:
    """The pytree that `ordered` took, whatever has taken the place of its arrays."""
    return jax.tree.map(_restored, tree, is_leaf=lambda node: isinstance(node, Ordered))


def _ordered(node: Any) -> Any:
    if not isinstance(node, dist.Distribution):
        return node
    kind = type(node)
    values, static = node.tree_flatten()
    parameters = dict(zip(kind.gather_pytree_data_fields(), values, strict=True))
    others = dict(zip(kind.gather_pytree_aux_fields(), static, strict=True))
    inner = {name: ordered(value) for name, value in parameters.items()}
    return Ordered(kind, inner, tuple((name, others[name]) for name in sorted(others)))


def _restored(node: Any) -> Any:
    if not isinstance(node, Ordered):
        return node
    kind, others = node.kind, dict(node.static)
    values = tuple(restored(node.parameters[n]) for n in kind.gather_pytree_data_fields())
    static = tuple(others[name] for name in kind.gather_pytree_aux_fields())
    return kind.tree_unflatten(static, values)
