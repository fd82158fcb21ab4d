"""Arsinh magnitudes, and how flux follows from mass and distance.

Arsinh magnitudes are logarithmic for bright fluxes, linear and finite for faint ones.

With a = 2.5 log10(e) and the softening magnitude mu_0 (Mathews et al. 2023, eq. 2),

    mu(f) = -a arsinh[(f / 2) exp(mu_0 / a)] + mu_0

where f is in maggies. For f far above 10^(-0.4 mu_0) this is the AB magnitude; at f = 0 it is
mu_0; negative fluxes give mu > mu_0. Lupton, Gunn & Szalay (1999) introduced the scale.

Both directions keep finite, non-zero gradients in float32 up to fluxes of 1e20 maggies, where
the square in the textbook derivative 1 / sqrt(x^2 + 1) has long overflowed.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxsed.core.compiled import compiled
from jaxsed.core.types import Theta
from jaxsed.cosmology import Cosmology, distance_modulus

POGSON = 2.5 * math.log10(math.e)
"""a of eq. 2 [mag]: the change of magnitude for a relative change of flux."""

REFERENCE_LOG_MASS = 10.0
"""log10 of the mass formed [Msun] whose flux at 10 pc galaxy models give."""

DEFAULT_MU_0 = 35.0
"""Softening magnitude of Mathews et al. (2023), for apparent magnitudes."""


@partial(compiled, static_argnames="mu_0")
def to_arsinh(flux: ArrayLike, mu_0: float = DEFAULT_MU_0) -> Array:
    """Arsinh magnitude of a flux.

    Args:
        flux: flux [maggies], any shape and sign.
        mu_0: softening magnitude [mag]; |mu_0| up to about 90 stays within float32.

    Returns:
        Arsinh magnitude [mag], the shape of `flux`.
    """
    return mu_0 - POGSON * _arsinh(jnp.asarray(flux, float) * (0.5 * math.exp(mu_0 / POGSON)))


@partial(compiled, static_argnames="mu_0")
def from_arsinh(mu: ArrayLike, mu_0: float = DEFAULT_MU_0, ln_amplitude: ArrayLike = 0.0) -> Array:
    """Flux of an arsinh magnitude, times exp(ln_amplitude).

    The amplitude enters in the exponent, so that a product of very large and very small factors
    (the flux at 10 pc and the squared distance) never leaves the range of float32.

    Args:
        mu: arsinh magnitude [mag], any shape.
        mu_0: softening magnitude [mag] that `mu` was made with.
        ln_amplitude: natural logarithm of a factor on the flux; broadcasts against `mu`.

    Returns:
        Flux [maggies], the broadcast shape.
    """
    x = jnp.asarray(mu, float) / POGSON
    # 2 exp(-mu_0/a) sinh((mu_0 - mu)/a), arranged so that nothing cancels near mu = mu_0 and
    # nothing overflows far from it
    return -jnp.exp(ln_amplitude - x) * jnp.expm1(2.0 * (x - mu_0 / POGSON))


def softening_flux(mu_0: float = DEFAULT_MU_0) -> float:
    """Flux [maggies] of AB magnitude mu_0, where the scale turns from linear to logarithmic."""
    return 10.0 ** (-0.4 * mu_0)


@compiled
def ln_amplitude(theta: Theta, cosmology: Cosmology) -> Array:
    """ln of a galaxy's flux over that of 10^10 Msun formed at 10 pc: mass and distance, exactly.

    Of a theta with `log_mass_formed` and `redshift`.  Closer than 10 pc counts as 10 pc, which
    keeps redshift 0 finite.
    """
    mass = jnp.asarray(theta.log_mass_formed, float) - REFERENCE_LOG_MASS
    return math.log(10.0) * mass - distance_modulus(theta.redshift, cosmology) / POGSON


@jax.custom_jvp
def _arsinh(x):
    # jnp.arcsinh itself survives large x; only its derivative needs help
    return jnp.arcsinh(x)


@_arsinh.defjvp
def _arsinh_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    scale = jnp.maximum(jnp.abs(x), 1.0)
    ratio = x / scale
    # 1 / sqrt(x^2 + 1) without squaring a number larger than 1
    return _arsinh(x), dx / (scale * jnp.sqrt(ratio * ratio + 1.0 / scale / scale))
