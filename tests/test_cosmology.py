"""Distances and ages against astropy, and their gradients."""

import astropy.constants as ac
import astropy.cosmology as apc
import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxsed import cosmology
from jaxsed.core import constants

REDSHIFTS = np.concatenate([[1e-6, 1e-4, 1e-3], np.linspace(0.01, 12.0, 150), [15.0, 20.0]])
COSMOLOGIES = {
    "Planck15": (cosmology.PLANCK15, apc.Planck15),
    "Planck13": (cosmology.PLANCK13, apc.Planck13),
    "WMAP9": (cosmology.WMAP9, apc.WMAP9),
}
QUANTITIES = {
    "age": (cosmology.age, lambda c, z: c.age(z).to_value("Gyr")),
    "lookback_time": (cosmology.lookback_time, lambda c, z: c.lookback_time(z).to_value("Gyr")),
    "comoving_distance": (
        cosmology.comoving_distance,
        lambda c, z: c.comoving_distance(z).to_value("Mpc"),
    ),
    "luminosity_distance": (
        cosmology.luminosity_distance,
        lambda c, z: c.luminosity_distance(z).to_value("Mpc"),
    ),
    "hubble": (cosmology.hubble, lambda c, z: c.H(z).to_value("km/(s Mpc)")),
}


def _on_grid(function, cosmo):
    return np.asarray(jax.vmap(lambda z: function(z, cosmo))(jnp.asarray(REDSHIFTS)), float)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("name", COSMOLOGIES)
def test_agrees_with_astropy_in_float32(name, quantity):
    ours, theirs = COSMOLOGIES[name]
    function, reference = QUANTITIES[quantity]
    np.testing.assert_allclose(_on_grid(function, ours), reference(theirs, REDSHIFTS), rtol=2e-6)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("name", COSMOLOGIES)
def test_agrees_with_astropy_in_64_bit(x64, name, quantity):
    ours, theirs = COSMOLOGIES[name]
    function, reference = QUANTITIES[quantity]
    np.testing.assert_allclose(_on_grid(function, ours), reference(theirs, REDSHIFTS), rtol=1e-6)


def test_distance_modulus_agrees_with_astropy():
    np.testing.assert_allclose(
        _on_grid(cosmology.distance_modulus, cosmology.PLANCK15),
        apc.Planck15.distmod(REDSHIFTS).value,
        atol=1e-5,
    )


@pytest.mark.parametrize("h, omega_m, m_nu", [(0.6, 0.2, 0.0), (0.8, 0.4, 0.3)])
def test_agrees_with_astropy_for_other_cosmologies(x64, h, omega_m, m_nu):
    ours = cosmology.Cosmology(h=h, omega_m=omega_m, m_nu=m_nu)
    theirs = apc.FlatLambdaCDM(
        100 * h, omega_m, Tcmb0=2.7255, Neff=3.046, m_nu=[0.0, 0.0, m_nu] * u.eV
    )
    for function, reference in QUANTITIES.values():
        np.testing.assert_allclose(
            _on_grid(function, ours), reference(theirs, REDSHIFTS), rtol=2e-6
        )


def test_zero_redshift_is_exact_and_its_gradient_finite():
    assert cosmology.luminosity_distance(0.0) == 0.0
    assert cosmology.lookback_time(0.0) == 0.0
    assert cosmology.distance_modulus(0.0) == 0.0
    slope = jax.grad(cosmology.luminosity_distance)(0.0)
    np.testing.assert_allclose(slope, constants.HUBBLE_DISTANCE / 0.6774, rtol=1e-5)
    for function in (cosmology.age, cosmology.lookback_time, cosmology.distance_modulus):
        assert np.isfinite(jax.grad(function)(0.0))


def test_age_plus_lookback_is_the_age_today():
    for z in (0.1, 1.0, 6.0):
        total = cosmology.age(z) + cosmology.lookback_time(z)
        np.testing.assert_allclose(total, cosmology.age(0.0), rtol=2e-6)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_gradients_in_redshift_and_cosmology(x64, quantity):
    function = QUANTITIES[quantity][0]
    cosmo = jax.tree.map(jnp.asarray, cosmology.PLANCK15)
    for z in (0.05, 1.3, 8.0):
        check_grads(function, (jnp.asarray(z), cosmo), order=1, modes=("fwd", "rev"), rtol=1e-4)


def test_gradients_are_finite_with_massless_neutrinos():
    gradient = jax.grad(cosmology.age, argnums=1)(1.0, cosmology.WMAP9)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(gradient))


def test_jit_equals_eager():
    jitted = jax.jit(cosmology.luminosity_distance)
    np.testing.assert_allclose(jitted(2.0), cosmology.luminosity_distance(2.0), rtol=1e-6)


def test_constants_are_those_of_astropy():
    expected = {
        "C_LIGHT": ac.c.to_value("AA/s"),
        "C_LIGHT_KM_S": ac.c.to_value("km/s"),
        "LSUN": ac.L_sun.cgs.value,
        "PC": ac.pc.cgs.value,
        "H_PLANCK": ac.h.cgs.value,
        "K_BOLTZMANN": ac.k_B.cgs.value,
        "K_BOLTZMANN_EV": ac.k_B.to_value("eV/K"),
        "MAGGIE": (3631 * u.Jy).cgs.value,
        "YEAR": u.yr.to("s"),
        "HUBBLE_TIME": (u.Mpc / (100 * u.km / u.s)).to_value("Gyr"),
        "HUBBLE_DISTANCE": (ac.c / (100 * u.km / u.s / u.Mpc)).to_value("Mpc"),
        "MAGGIES_10PC_PER_LSUN_HZ": (
            (1 * u.L_sun / u.Hz / (4 * np.pi * (10 * u.pc) ** 2)).to_value(3631 * u.Jy)
        ),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(constants, name), value, rtol=1e-12, err_msg=name)
