"""Normalising flow: a density of parameters given data, to draw from and to evaluate.

A conditional masked autoregressive flow (Papamakarios et al. 2017): blocks of

    x_i = mean_i(x_<i, context) + exp(log scale_i(x_<i, context)) z_i,

with the variables in another order in each.  Densities take one pass of each network, and so do
draws: see `jaxsed.nets.made`.  Parameters are coordinates of a `Problem`, which are unbounded, so
no draw falls outside the prior.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core.types import Key, PyTree
from jaxsed.nets import made
from jaxsed.nets.made import Made


@struct.dataclass(eq=False)  # equal only if the same object, so that it can be hashed
class Flow:
    """A conditional density of x [dimension] given a context [feature]."""

    blocks: Made
    """Weights with a leading axis [block]."""
    x_shift: Array
    """[dimension] and `x_scale`: the blocks see (x - shift) / scale."""
    x_scale: Array
    context_shift: Array
    """[feature] and `context_scale`, likewise."""
    context_scale: Array
    orders: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)
    """[block, dimension] order of the variables after each block."""

    @property
    def dimension(self) -> int:
        """Number of variables."""
        return self.x_shift.shape[-1]

    def forward(self, z: Array, context: Array) -> tuple[Array, Array]:
        """x [dimension] from z [dimension], and ln |dx/dz|."""
        c = (context - self.context_shift) / self.context_scale

        def block(carry: tuple[Array, Array], inputs: PyTree) -> tuple[tuple[Array, Array], None]:
            weights, order = inputs
            x, log_det = carry
            x, added = made.ancestral(weights, x, c)
            return (x[order], log_det + added), None

        start = (z, jnp.sum(jnp.log(self.x_scale)))
        (x, log_det), _ = jax.lax.scan(block, start, (self.blocks, jnp.asarray(self.orders)))
        return self.x_shift + self.x_scale * x, log_det

    def inverse(self, x: Array, context: Array) -> tuple[Array, Array]:
        """z [dimension] from x [dimension], and ln |dz/dx|."""
        c = (context - self.context_shift) / self.context_scale
        back = jnp.asarray(np.argsort(np.asarray(self.orders), axis=1))

        def block(carry: tuple[Array, Array], inputs: PyTree) -> tuple[tuple[Array, Array], None]:
            weights, order = inputs
            z, log_det = carry
            z = z[order]
            mean, log_scale = made.conditional(weights, z, c)
            return ((z - mean) * jnp.exp(-log_scale), log_det - jnp.sum(log_scale)), None

        start = ((x - self.x_shift) / self.x_scale, -jnp.sum(jnp.log(self.x_scale)))
        (z, log_det), _ = jax.lax.scan(block, start, (self.blocks, back), reverse=True)
        return z, log_det

    def log_prob(self, x: Array, context: Array) -> Array:
        """Log density of x [dimension]."""
        z, log_det = self.inverse(x, context)
        return log_det + _log_normal(z)

    def sample(self, key: Key, context: Array, n: int) -> tuple[Array, Array]:
        """Draws [n, dimension] and their log densities [n]."""
        z = jax.random.normal(key, (n, self.dimension), self.x_shift.dtype)
        x, log_det = jax.vmap(self.forward, (0, None))(z, context)
        return x, jax.vmap(_log_normal)(z) - log_det

    def distribution(self, context: Array) -> Any:
        """The same as a distrax distribution with the event shape [dimension]."""
        import distrax

        base = distrax.MultivariateNormalDiag(
            jnp.zeros_like(self.x_shift), jnp.ones_like(self.x_shift)
        )
        return distrax.Transformed(base, self.bijector(context))

    def bijector(self, context: Array) -> Any:
        """z -> x as a distrax bijector."""
        return _bijector()(self, context)


def create(
    key: Key,
    dimension: int,
    features: int,
    *,
    blocks: int = 15,
    width: int = 500,
    depth: int = 2,
) -> Flow:
    """An untrained flow; the default sizes are SEDflow's (Hahn & Melchior 2022, section 3.3)."""
    key_weights, key_orders = jax.random.split(key)
    weights = [
        made.init(k, dimension, features, width, depth)
        for k in jax.random.split(key_weights, blocks)
    ]
    orders = [
        np.asarray(jax.random.permutation(k, dimension))
        for k in jax.random.split(key_orders, blocks)
    ]
    return Flow(
        blocks=jax.tree.map(lambda *a: jnp.stack(a), *weights),
        x_shift=jnp.zeros(dimension),
        x_scale=jnp.ones(dimension),
        context_shift=jnp.zeros(features),
        context_scale=jnp.ones(features),
        orders=tuple(tuple(int(i) for i in order) for order in orders),
    )


def _log_normal(z: Array) -> Array:
    return -0.5 * jnp.sum(z**2) - 0.5 * z.size * math.log(2 * math.pi)


def _bijector() -> Any:
    """The class of the facade; distrax is imported only where one is asked for."""
    import distrax

    class ConditionedFlow(distrax.Bijector):
        """A flow at one context."""

        def __init__(self, flow: Flow, context: Array) -> None:
            super().__init__(event_ndims_in=1)
            self.flow, self.context = flow, context

        def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
            return _over_batch(self.flow.forward, x, self.context)

        def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
            return _over_batch(self.flow.inverse, y, self.context)

    return ConditionedFlow


def _over_batch(function: Any, x: Array, context: Array) -> tuple[Array, Array]:
    """One-vector functions over any leading axes of x."""
    flat = x.reshape(-1, x.shape[-1])
    y, log_det = jax.vmap(function, (0, None))(flat, context)
    return y.reshape(x.shape), log_det.reshape(x.shape[:-1])
