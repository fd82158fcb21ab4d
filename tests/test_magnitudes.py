"""Arsinh magnitudes: the equation, its limits, the round trip and gradients in float32."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.cosmology import Planck15

from jaxsed.bands.magnitudes import (
    POGSON,
    from_arsinh,
    ln_amplitude,
    softening_flux,
    to_arsinh,
)
from jaxsed.cosmology import PLANCK15
from jaxsed.emulators import load_emulator
from jaxsed.sps.models import galaxy
from jaxsed.sps.spectra import pixels


class Theta(NamedTuple):
    log_mass_formed: float
    redshift: float


FLUXES = np.array([1e-25, 1e-18, 1e-14, 1e-11, 1e-9, 1.0, 1e8, 1e15])


def equation_2(flux, mu_0):
    """Mathews et al. (2023), eq. 2, as printed, in float64."""
    a = 2.5 * np.log10(np.e)
    return -a * np.arcsinh(flux / 2 * np.exp(mu_0 / a)) + mu_0


@pytest.mark.parametrize("mu_0", [35.0, 0.0, -5.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_equation(mu_0, sign):
    got = to_arsinh(sign * FLUXES, mu_0)
    np.testing.assert_allclose(got, equation_2(sign * FLUXES, mu_0), rtol=1e-6, atol=1e-5)


def test_limits():
    bright = np.array([1e-11, 1e-9, 1e-4])
    np.testing.assert_allclose(to_arsinh(bright), -2.5 * np.log10(bright), rtol=1e-6)
    assert float(to_arsinh(0.0)) == 35.0
    assert float(to_arsinh(0.0, -3.0)) == -3.0
    # the flux of the softening magnitude is where the scale turns over
    assert float(to_arsinh(softening_flux(20.0), 20.0)) == pytest.approx(
        20.0 - POGSON * np.arcsinh(0.5), rel=1e-6
    )


def test_round_trip_float32():
    mu = jnp.linspace(-45.0, 34.9, 200)
    np.testing.assert_allclose(to_arsinh(from_arsinh(mu)), mu, atol=2e-5)
    back = from_arsinh(to_arsinh(FLUXES, 40.0), 40.0)
    # far below the softening only the absolute size is kept
    np.testing.assert_allclose(back, FLUXES, rtol=2e-5, atol=1e-5 * softening_flux(40.0))


def test_round_trip_float64(x64):
    mu = jnp.linspace(-45.0, 36.0, 200)
    np.testing.assert_allclose(to_arsinh(from_arsinh(mu)), mu, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mu_0", [35.0, 0.0])
def test_gradients_keep_their_size_in_float32(mu_0):
    flux = jnp.asarray(np.concatenate([[0.0], FLUXES, -FLUXES, [1e20]]), jnp.float32)
    got = jax.vmap(jax.grad(to_arsinh), (0, None))(flux, mu_0)
    k = np.exp(mu_0 / POGSON) / 2
    np.testing.assert_allclose(
        got, -POGSON * k / np.hypot(1.0, k * np.asarray(flux, float)), rtol=1e-5
    )


def test_gradient_of_inverse():
    mu = jnp.array([-40.0, -20.0, 20.0, 35.0, 36.0])
    got = jax.vmap(jax.grad(from_arsinh))(mu)
    y = (35.0 - np.asarray(mu, float)) / POGSON
    np.testing.assert_allclose(got, -2 / POGSON * np.exp(-35.0 / POGSON) * np.cosh(y), rtol=2e-5)


def test_amplitude_in_the_exponent():
    # F10 and the dilution by distance are each far from one; their product is a usual flux
    mu = jnp.array([-24.0, -20.0, -1.0])
    ln_amplitude = -2 * np.log(1e9)
    np.testing.assert_allclose(
        from_arsinh(mu, 0.0, ln_amplitude), np.asarray(from_arsinh(mu, 0.0)) * 1e-18, rtol=1e-5
    )
    assert np.all(np.isfinite(from_arsinh(-100.0, 0.0, -100.0)))


def test_mass_and_distance_are_the_same_for_bands_spectra_and_emulators():
    """log10 of flux = mass - 0.4 modulus, in double precision, whoever asks."""
    theta = Theta(log_mass_formed=10.7, redshift=0.3)
    modulus = Planck15.distmod(0.3).value
    ln_flux = np.log(10.0) * (10.7 - 10.0 - 0.4 * modulus)
    np.testing.assert_allclose(ln_amplitude(theta, PLANCK15), ln_flux, atol=1e-3)
    emulator = load_emulator("provabgs_sdss")
    np.testing.assert_array_equal(emulator.ln_amplitude(theta), ln_amplitude(theta, PLANCK15))
    np.testing.assert_allclose(galaxy.amplitude(theta, PLANCK15), np.exp(ln_flux), rtol=1e-3)
    # 1e-17 erg/s/cm2 of 1 Lsun per Msun formed
    area = 4 * np.pi * (3.0856775814913674e19) ** 2
    of_spectrum = 3.828e33 / area / 1e-17 * 1e10 * np.exp(ln_flux)
    np.testing.assert_allclose(pixels.amplitude(theta, PLANCK15), of_spectrum, rtol=1e-3)
