"""Linear algebra of many small matrices at once.

LAPACK is called matrix by matrix; for thousands of matrices of a dozen rows, loops over rows that
are vectorised over the batch are faster, run anywhere, and cannot wait for a thread pool.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def cholesky(a: Array) -> Array:
    """Lower-triangular factor of a positive-definite matrix [n, n]; not-a-number otherwise."""
    below = jnp.arange(a.shape[0])

    def column(j: int, factor: Array) -> Array:
        rest = a[:, j] - factor @ factor[j]
        return factor.at[:, j].set(jnp.where(below >= j, rest / jnp.sqrt(rest[j]), 0.0))

    return jax.lax.fori_loop(0, a.shape[0], column, jnp.zeros_like(a))


def inverse_lower(factor: Array) -> Array:
    """Inverse of a lower-triangular matrix [n, n]."""
    eye = jnp.eye(factor.shape[0], dtype=factor.dtype)

    def row(i: int, inverse: Array) -> Array:
        return inverse.at[i].set((eye[i] - factor[i] @ inverse) / factor[i, i])

    return jax.lax.fori_loop(0, factor.shape[0], row, jnp.zeros_like(factor))


def solve_positive(a: Array, b: Array) -> Array:
    """Solution [n] of a x = b for a positive-definite matrix [n, n]."""
    inverse = inverse_lower(cholesky(a))
    return inverse.T @ (inverse @ b)


def factor_of_inverse(a: Array) -> Array:
    """Lower-triangular L with L L^T the inverse of a positive-definite matrix [n, n]."""
    # With rows and columns in reverse order the factor of `a` is upper triangular.
    return inverse_lower(cholesky(a[::-1, ::-1]))[::-1, ::-1].T


@jax.custom_jvp
def inverse_positive(a: Array) -> Array:
    """Inverse of a positive-definite matrix [n, n], brought to a unit diagonal before factoring.

    Derivatives follow from d(a^-1) = -a^-1 da a^-1, so no loop is differentiated.
    """
    scale, inverse = _scaled_inverse(a)
    return scale[:, None] * (inverse.T @ inverse) * scale


@inverse_positive.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    inverse = inverse_positive(*primals)
    return inverse, -inverse @ tangents[0] @ inverse


@jax.custom_jvp
def log_determinant(a: Array) -> Array:
    """ln det of a positive-definite matrix [n, n]; its derivative is tr(a^-1 da)."""
    scale, inverse = _scaled_inverse(a)
    return -2.0 * jnp.sum(jnp.log(jnp.diag(inverse)) + jnp.log(scale))


@log_determinant.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (a,), (da,) = primals, tangents
    return log_determinant(a), jnp.sum(inverse_positive(a) * da)


def _scaled_inverse(a: Array) -> tuple[Array, Array]:
    """s [n] and the inverse Cholesky factor of s a s, which has a unit diagonal."""
    if a.shape[0] == 0:
        return jnp.zeros(0, a.dtype), a
    scale = 1.0 / jnp.sqrt(jnp.diag(a))
    return scale, inverse_lower(cholesky(scale[:, None] * a * scale))
