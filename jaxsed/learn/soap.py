"""SOAP: Adam in the slowly turning eigenbasis of Shampoo's preconditioner.

For a weight matrix with gradient G, the running means L of G G^T and R of G^T G have eigenvectors
Q_L and Q_R; Adam runs on Q_L^T G Q_R, and its step is turned back (Vyas et al. 2024, algorithm
3). Both bases follow L and R by orthogonal iteration, every few tens of steps. No tensor's step
is longer than one in the root mean square (Shazeer & Stern 2018, section 5).

The orthonormalisation is written out in XLA operations. LAPACK's runs on threads of its own,
which fight XLA's for the processor: on a busy machine that slows training down some tens of times.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsed.core.types import Numbers

_PANEL = 32
_SHIFT = 1e-6


class SoapState(NamedTuple):
    """Each but `count` has the structure of the parameters; the last four are empty for vectors.

    `mean` and `square` are in the bases, as Adam's moments.
    """

    count: Any
    mean: Numbers
    square: Any
    left: Any
    right: Any
    basis_left: Any
    basis_right: Any


def scale_by_soap(
    b1: float = 0.95, b2: float = 0.99, *, every: int = 30, refresh: int = 5, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Direction of SOAP with a learning rate of one; leaves that are no matrices follow Adam.

    Args:
        b1: decay of the gradient's running mean, per step.
        b2: decay of its running square, of L and of R, per step.
        every: steps between turns of the bases.
        refresh: steps between updates of L and R.
        eps: added to the root of the running square.
    """
    keep = b2**refresh

    def init(params):
        def matrices(make, axis):
            return jax.tree.map(
                lambda p: make(p.shape[axis]).astype(p.dtype) if p.ndim == 2 else p[:0], params
            )

        zeros = jax.tree.map(jnp.zeros_like, params)
        nothing = [matrices(lambda n: jnp.zeros((n, n)), axis) for axis in (0, 1)]
        bases = [matrices(jnp.eye, axis) for axis in (0, 1)]
        return SoapState(jnp.zeros((), jnp.int32), zeros, zeros, *nothing, *bases)

    def update(gradient, state, params=None):
        del params
        count = state.count + 1
        turned = jax.tree.map(_into, gradient, state.basis_left, state.basis_right)
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, turned)
        square = jax.tree.map(lambda s, g: b2 * s + (1 - b2) * g * g, state.square, turned)

        def adam_step(m, s):
            step = (m / (1 - b1**count)) / (jnp.sqrt(s / (1 - b2**count)) + eps)
            # After a turn the squares still belong to the basis before, so a step can be far too
            # long.
            return step / jnp.maximum(1.0, jnp.sqrt(jnp.mean(step**2)))

        step = jax.tree.map(adam_step, mean, square)
        direction = jax.tree.map(_out_of, step, state.basis_left, state.basis_right)
        left, right = jax.lax.cond(
            count % refresh == 1 % refresh,
            lambda sides: tuple(
                jax.tree.map(lambda s, g, axis=axis: _add_gram(s, g, axis, keep), side, gradient)
                for axis, side in enumerate(sides)
            ),
            lambda sides: sides,
            (state.left, state.right),
        )

        def turn(mean, old_left, old_right):
            new_left = jax.tree.map(_iterate, left, old_left)
            new_right = jax.tree.map(_iterate, right, old_right)
            mean = jax.tree.map(_out_of, mean, old_left, old_right)
            return jax.tree.map(_into, mean, new_left, new_right), new_left, new_right

        mean, basis_left, basis_right = jax.lax.cond(
            count % every == 1 % every,
            turn,
            lambda *unchanged: unchanged,
            mean, state.basis_left, state.basis_right,
        )  # fmt: skip
        return direction, SoapState(count, mean, square, left, right, basis_left, basis_right)

    return optax.GradientTransformation(init, update)


def _into(g, basis_left, basis_right):
    return basis_left.T @ g @ basis_right if g.ndim == 2 else g


def _out_of(g, basis_left, basis_right):
    return basis_left @ g @ basis_right.T if g.ndim == 2 else g


def _add_gram(side, g, axis, keep):
    """Running mean of G G^T (axis 0) or G^T G (axis 1)."""
    if g.ndim != 2:
        return side
    return keep * side + (1 - keep) * (g @ g.T if axis == 0 else g.T @ g)


def _iterate(matrix, basis):
    """One step of orthogonal iteration towards the eigenvectors of a semi-definite matrix."""
    if matrix.ndim != 2:
        return basis
    # the shift leaves the eigenvectors and keeps the columns independent in float32
    shift = _SHIFT * jnp.trace(matrix) / matrix.shape[0] + jnp.finfo(matrix.dtype).tiny
    return orthonormalise(matrix @ basis + shift * basis)


def orthonormalise(a: jax.Array) -> jax.Array:
    """Orthonormal columns [n, n] that span what those of `a` [n, n] do, first columns first.

    Gram-Schmidt in panels, so that most of it is matrix products; everything is done twice, which
    keeps the columns orthogonal to rounding even where those of `a` nearly depend on each other.
    """
    size = a.shape[0]
    n = -(-size // _PANEL) * _PANEL
    a = jnp.eye(n, dtype=a.dtype).at[:size, :size].set(a)
    tiny = jnp.finfo(a.dtype).tiny

    def unit(x):
        # scaled first, because squares of small gradients' products underflow
        x = x / jnp.maximum(jnp.max(jnp.abs(x), 0), tiny)
        return x / jnp.sqrt(jnp.maximum(jnp.sum(x * x, 0), tiny))

    def one_panel(i, q):
        def column(k, p):
            v = jax.lax.dynamic_index_in_dim(p, k, 1, keepdims=False)
            before = jnp.where(jnp.arange(_PANEL) < k, p, 0.0)
            for _ in range(2):
                v = unit(v - before @ (v @ before))
            return jax.lax.dynamic_update_index_in_dim(p, v, k, 1)

        def sweep(_, p):
            p = unit(p)
            p = unit(p - q @ (q.T @ p))
            return jax.lax.fori_loop(0, _PANEL, column, p)

        panel = jax.lax.dynamic_slice(a, (0, i * _PANEL), (n, _PANEL))
        panel = jax.lax.fori_loop(0, 2, sweep, panel)
        return jax.lax.dynamic_update_slice(q, panel, (0, i * _PANEL))

    return jax.lax.fori_loop(0, n // _PANEL, one_panel, jnp.zeros_like(a))[:size, :size]
