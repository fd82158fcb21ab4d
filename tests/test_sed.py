"""The composite spectrum and its assembly into a galaxy model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed import cosmology as cosmo
from jaxsed.bands.filters import ab_flux, load_filter, make_filter
from jaxsed.core.constants import MAGGIES_10PC_PER_LSUN_HZ
from jaxsed.sps import igm
from jaxsed.sps.dust.attenuation import CharlotFall
from jaxsed.sps.models import galaxy as sed
from jaxsed.sps.models import provabgs
from jaxsed.sps.populations import composite as populations
from jaxsed.sps.populations import sfh
from jaxsed.sps.ssp.grid import insert_age, load_ssp, resample

THETA = provabgs.ProvabgsTheta(
    log_mass_formed=10.7, beta=jnp.array([0.4, 0.3, 0.2, 0.1]), f_burst=0.02, t_burst=0.3,
    gamma1=5e-3, gamma2=8e-3, dust1=0.6, dust2=0.4, dust_index=-0.4, redshift=0.8,
)  # fmt: skip
BANDS = ("sdss_u0", "sdss_r0", "twomass_H")
FLUX = jax.jit(lambda model, theta: model(theta))
SHAPE = jax.jit(lambda model, theta: model.shape(theta))


@pytest.fixture(scope="module")
def ssp():
    return load_ssp()


@pytest.fixture(scope="module")
def bands():
    return [load_filter(name) for name in BANDS]


@pytest.fixture(scope="module")
def model(ssp, bands):
    return sed.galaxy_model(provabgs.provabgs, "provabgs", ssp, bands, redshift_range=(0.0, 2.0))


def test_photometry_is_that_of_the_spectrum_at_the_native_sampling(model, ssp, bands):
    """Steps of 0.005 in ln(wavelength) and left-out nodes cost less than a percent."""
    stars, dust = populations.populations(ssp), CharlotFall.build(ssp.wave)
    physics = provabgs.provabgs(stars.axis, stars.log_z_solar)

    @jax.jit
    def seen(stars, theta):
        t_age = cosmo.age(theta.redshift)
        young, old = stars.light(physics.formation(theta, t_age), physics.log_z(theta))
        young_seen, old_seen = dust(theta.dust1, theta.dust2, theta.dust_index)
        return (young_seen * young + old_seen * old) * igm.transmission(ssp.wave, theta.redshift)

    spectrum = seen(stars, THETA)
    distance = float(cosmo.luminosity_distance(THETA.redshift)) * 1e5  # in 10 pc
    unit = MAGGIES_10PC_PER_LSUN_HZ * 10**THETA.log_mass_formed * (1 + THETA.redshift) / distance**2
    f_nu = np.asarray(spectrum, float) * unit
    expected = [ab_flux(np.asarray(ssp.wave) * (1 + THETA.redshift), f_nu, band) for band in bands]
    np.testing.assert_allclose(FLUX(model, THETA), expected, rtol=8e-3)


def test_finer_grid_converges(model, ssp, bands):
    fine = sed.galaxy_model(
        provabgs.provabgs, "provabgs", ssp, bands, redshift_range=(0.5, 1.0), ln_step=0.001
    )
    np.testing.assert_allclose(FLUX(model, THETA), FLUX(fine, THETA), rtol=5e-3)


def test_mass_and_distance_are_an_exact_factor(model):
    factor = sed.amplitude(THETA, cosmo.PLANCK15)
    np.testing.assert_allclose(FLUX(model, THETA), SHAPE(model, THETA) * factor, rtol=1e-5)
    modulus = float(cosmo.distance_modulus(THETA.redshift))
    np.testing.assert_allclose(np.log10(factor), 0.7 - 0.4 * modulus, rtol=1e-5)


def test_nodes_left_out_are_redundant(ssp):
    """Light at a metallicity that was left out, from its neighbours."""
    stars = populations.populations(ssp)
    kept = np.asarray(stars.log_z)
    left_out = np.setdiff1d(np.round(np.asarray(ssp.log_z), 4), np.round(kept, 4))
    assert left_out.size >= 1
    log_age = float(np.log10(stars.axis.age[-1]))
    last = int(np.argmin(np.abs(np.asarray(ssp.log_age) - log_age)))
    for log_z in left_out:
        k = int(np.argmin(np.abs(np.asarray(ssp.log_z) - log_z)))
        share = np.array([np.interp(log_z, kept, row) for row in np.eye(kept.size)])
        old = np.asarray(stars.old).reshape(kept.size, -1, stars.wave.size)[:, -1]
        light = np.asarray(ssp.lnu[k, last])
        lit = light > 0
        np.testing.assert_allclose((share @ old)[lit], light[lit], rtol=0.011)


def test_populations_need_ages_on_both_sides_of_the_birth_clouds(ssp):
    for age in (1e-4, 99.0):
        with pytest.raises(ValueError, match="birth_cloud_age .* outside the SSP ages"):
            populations.populations(ssp, birth_cloud_age=age)


def test_birth_clouds_dim_only_the_young(ssp):
    coarse = resample(ssp, np.asarray(ssp.wave)[300:900:60])
    stars = populations.populations(coarse, birth_cloud_age=0.01)
    node = stars.birth_cloud_node
    assert float(stars.axis.age[node]) == pytest.approx(0.01, rel=1e-4)
    log_z = jnp.full(stars.axis.age.shape, -2.0)
    for edges, dark in (([0.0, 0.009], 1), ([0.012, 5.0], 0)):
        part = sfh.piecewise_constant(jnp.ones(1), jnp.array(edges), stars.axis)
        both = stars.light(populations.Formation(part), log_z)
        np.testing.assert_allclose(both[dark] / both[1 - dark], 0.0, atol=1e-6)
        # Outside of clouds all the light is there, and none inside.
        clouded = part._replace(mass=0 * part.mass, upper=0 * part.upper)
        inside, outside = stars.light(populations.Formation(clouded, bare=part), log_z)
        np.testing.assert_array_equal(inside, 0.0)
        np.testing.assert_allclose(outside, both[0] + both[1], rtol=1e-5)


def test_light_is_split_at_the_age_of_the_birth_clouds(ssp):
    """A history of all ages: inside of clouds is the light of what is younger, and no other's."""
    coarse = resample(ssp, np.asarray(ssp.wave)[300:900:60])
    for age in (0.01, 0.1):
        stars = populations.populations(coarse, birth_cloud_age=age)
        log_z = jnp.full(stars.axis.age.shape, -2.0)

        def light(rate, edges, stars=stars, log_z=log_z):
            part = sfh.piecewise_constant(jnp.asarray(rate), jnp.asarray(edges), stars.axis)
            return np.asarray(stars.light(populations.Formation(part), log_z))

        whole = light([3.0, 1.0], [0.0, 0.5 * age, 8.0])
        young = light([3.0, 1.0], [0.0, 0.5 * age, age]).sum(axis=0)
        old = light([1.0], [0.0, 8.0]).sum(axis=0) - light([1.0], [0.0, age]).sum(axis=0)
        np.testing.assert_allclose(whole[0], young, rtol=1e-4)
        np.testing.assert_allclose(whole[1], old, rtol=1e-3)


def test_an_inserted_node_changes_nothing(ssp):
    coarse = resample(ssp, np.asarray(ssp.wave)[300:900:60])
    spectra = []
    for grid in (coarse, insert_age(coarse, 0.77)):
        stars = populations.populations(grid)
        rate, edges = jnp.array([1.0, 0.2]), jnp.array([0.0, 1.0, 9.0])
        part = sfh.piecewise_constant(rate, edges, stars.axis)
        light = stars.light(populations.Formation(part), jnp.full(stars.axis.age.shape, -2.0))
        spectra.append(light[0] + light[1])
    np.testing.assert_allclose(spectra[0], spectra[1], rtol=1e-4)


def test_intergalactic_gas_absorbs_below_lyman_alpha(ssp):
    band = [make_filter("blue", [3500.0, 3600.0, 3700.0], [0.0, 1.0, 0.0])]
    model = sed.galaxy_model(provabgs.provabgs, "provabgs", ssp, band, redshift_range=(0.0, 6.0))
    without = model.replace(igm=jax.tree_util.Partial(lambda z: jnp.ones(1)))
    flux, clear = model.shape, without.shape
    for redshift, low, high in ((1.5, 0.999, 1.001), (2.6, 0.5, 0.9)):
        theta = THETA._replace(redshift=redshift)
        assert low < float(flux(theta)[0] / clear(theta)[0]) < high
    # Below the Lyman limit the shipped populations have no light at all.
    assert float(flux(THETA._replace(redshift=5.5))[0]) == 0.0


def test_bands_out_of_reach_are_named(ssp):
    far = make_filter("far", [2.8e6, 3e6, 3.2e6], [0.0, 1.0, 0.0])
    near = load_filter("sdss_r0")
    with pytest.raises(ValueError, match="does not reach the bands far at redshifts 0 to 1"):
        sed.galaxy_model(provabgs.provabgs, "provabgs", ssp, [near, far], redshift_range=(0.0, 1.0))
    cut = resample(ssp, np.asarray(ssp.wave)[np.asarray(ssp.wave) > 3000.0])
    assert sed.unreachable([near], np.asarray(cut.wave), (0.0, 0.2)) == []
    assert sed.unreachable([near], np.asarray(cut.wave), (0.0, 1.5)) == ["sdss_r0"]


def test_redshift_range_is_checked(ssp, bands):
    with pytest.raises(ValueError, match="expected 0 <= z_low <= z_high"):
        sed.galaxy_model(provabgs.provabgs, "provabgs", ssp, bands, redshift_range=(2.0, 1.0))
