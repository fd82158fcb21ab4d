"""What every galaxy model must do, by registry: a new model is tested by being in `FAMILIES`."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import reference_spectra
from jax.flatten_util import ravel_pytree

from jaxsed import cosmology as cosmo
from jaxsed import params
from jaxsed.bands.filters import load_filter
from jaxsed.likelihood import photometry
from jaxsed.problem import Problem
from jaxsed.sps.models.registry import FAMILIES, family
from jaxsed.sps.populations import sfh
from jaxsed.sps.ssp.grid import load_ssp

BANDS = ("sdss_u0", "sdss_r0", "twomass_H", "spitzer_irac_ch1")
Z_RANGE = (0.0, 3.0)
N = 16


def _model(name):
    bands = [load_filter(b) for b in BANDS]
    return family(name).model(load_ssp(family(name).ssp), bands, redshift_range=Z_RANGE)


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


heavy = pytest.mark.parametrize(
    "name",
    [
        # "prospector" has its history and dust, and more
        pytest.param(name, marks=pytest.mark.slow) if name == "continuity" else name
        for name in FAMILIES
    ],
    indirect=True,
)
"""For tests that take long to compile."""


@pytest.fixture(scope="module")
def model(name):
    return _model(name)


@pytest.fixture(scope="module")
def prior(name):
    return family(name).prior(dist.Uniform(0.05, 2.5))


@pytest.fixture(scope="module")
def thetas(prior):
    x = 0.8 * jax.random.normal(jax.random.key(0), (N, params.dimension(prior)))
    return jax.jit(jax.vmap(lambda x: params.constrain(prior, x)[0]))(x)


@pytest.fixture(scope="module")
def batched(model):
    """The model over a batch, compiled once."""
    return jax.jit(jax.vmap(model))


@pytest.fixture(scope="module")
def fluxes(batched, thetas):
    return batched(thetas)


@pytest.fixture(scope="module")
def derived(model, thetas):
    return jax.jit(jax.vmap(model.derived))(thetas)


def _one(thetas, k=0):
    return jax.tree.map(lambda leaf: leaf[k], thetas)


def test_fluxes_are_positive_and_named(model, fluxes):
    assert fluxes.shape == (N, len(BANDS)) and model.band_names == BANDS
    assert np.all(np.isfinite(fluxes)) and np.all(np.asarray(fluxes) > 0)


def test_jit_is_eager_and_vmap_is_a_loop(model, thetas, fluxes):
    jitted = jax.jit(model)
    for k in range(3):
        theta = _one(thetas, k)
        np.testing.assert_allclose(jitted(theta), fluxes[k], rtol=2e-4)
    np.testing.assert_allclose(model(_one(thetas)), fluxes[0], rtol=2e-4)


def test_pytree_round_trip_and_no_second_compilation(model, thetas):
    traces = []

    @jax.jit
    def flux(model, theta):
        traces.append(None)
        return model(theta)

    first = flux(model, _one(thetas))
    leaves, structure = jax.tree.flatten(model)
    again = jax.tree.unflatten(structure, leaves)
    assert jax.tree.structure(again) == structure and hash(jax.tree.structure(again)) is not None
    np.testing.assert_array_equal(flux(again, _one(thetas)), first)
    flux(jax.tree.map(lambda x: x * 1, model), _one(thetas, 1))
    assert len(traces) == 1


def test_flux_is_proportional_to_mass(batched, thetas, fluxes):
    heavier = thetas._replace(log_mass_formed=thetas.log_mass_formed + 1.3)
    np.testing.assert_allclose(batched(heavier), fluxes * 10**1.3, rtol=1e-4)


def test_mass_is_conserved(model, thetas):
    def sums(theta):
        t_age = cosmo.age(theta.redshift, model.cosmology)
        part = model.physics.formation(theta, t_age).total()
        return part.mass.sum(), sfh.node_mass(part).sum(), part.mass.min(), t_age

    mass, nodes, least, _ = jax.jit(jax.vmap(sums))(thetas)
    np.testing.assert_allclose(mass, 1.0, rtol=2e-5)
    np.testing.assert_allclose(nodes, 1.0, rtol=2e-5)
    assert np.all(np.asarray(least) > -1e-6)


def test_derived_quantities_hang_together(model, thetas, derived):
    t_age = np.asarray(jax.vmap(lambda z: cosmo.age(z, model.cosmology))(thetas.redshift))
    lost = np.asarray(thetas.log_mass_formed - derived.log_mass_surviving)
    assert np.all(lost > 0) and np.all(lost < 0.5)
    assert np.all(np.asarray(derived.t_age_mw) < t_age)
    assert np.all(np.asarray(derived.t90) <= np.asarray(derived.t50))
    assert np.all(np.asarray(derived.t50) <= t_age)
    # The rates are means of the history itself.
    age = np.asarray(model.stars.axis.age)
    low = np.concatenate([[0], age[:-1]])
    span = np.clip(np.minimum(age, t_age[:, None]) - low, 1e-6, None)
    formed = np.cumsum(np.asarray(derived.sfr) * span * 1e9, 1)
    np.testing.assert_allclose(np.log10(formed[:, -1]), thetas.log_mass_formed, atol=1e-3)
    # Half of the mass, and a tenth, formed within the last t50 and t90.
    edges = np.concatenate([[0], age])
    for k in range(N):
        share = np.concatenate([[0], formed[k]]) / formed[k, -1]
        ends = np.minimum(edges, t_age[k])
        for time, expected in ((derived.t50[k], 0.5), (derived.t90[k], 0.1)):
            assert np.interp(time, ends, share) == pytest.approx(expected, abs=2e-3)
    for time, log_sfr in (
        (0.01, derived.log_sfr_10myr), (0.1, derived.log_sfr_100myr), (1.0, derived.log_sfr_1gyr),
    ):  # fmt: skip
        node = np.argmin(np.abs(age - time))
        np.testing.assert_allclose(np.log10(formed[:, node] / (1e9 * time)), log_sfr, atol=1e-3)


def test_dust_dims_and_reddens(batched, thetas, fluxes):
    dustier = batched(thetas._replace(dust2=thetas.dust2 + 0.5))
    dimming = np.asarray(fluxes / dustier)
    assert np.all(dimming[:, :3] > 1)  # dust may shine in the last band
    local = np.asarray(thetas.redshift) < 1.0
    assert np.all(dimming[local, 1] > dimming[local, 3])


@heavy
def test_gradients_against_finite_differences(name, x64):
    """Every parameter, at interior points, in 64-bit: reverse, forward and central differences."""
    model = _model(name)
    prior = family(name).prior(dist.Uniform(0.05, 2.5))
    x = 0.8 * jax.random.normal(jax.random.key(7), (3, params.dimension(prior)))
    thetas = jax.jit(jax.vmap(lambda x: params.constrain(prior, x)[0]))(x)
    flat = np.stack([ravel_pytree(_one(thetas, k))[0] for k in range(len(x))])
    unravel = ravel_pytree(_one(thetas))[1]
    names = params.flat_names(_one(thetas))

    def log_flux(v):
        return jnp.log(model(unravel(v)))

    finite = reference_spectra.central_differences(log_flux, flat)
    direction = jnp.ones(flat.shape[1])

    def both_modes(v):
        return jax.jacrev(log_flux)(v), jax.jvp(log_flux, (v,), (direction,))[1]

    reverse, forward = (np.asarray(x) for x in jax.jit(jax.vmap(both_modes))(flat))
    for k, parameter in enumerate(names):
        scale = max(1e-3, np.abs(finite[:, k]).max())
        np.testing.assert_allclose(
            reverse[:, :, k], finite[:, k], rtol=1e-5, atol=1e-6 * scale, err_msg=parameter
        )
    np.testing.assert_allclose(forward, reverse.sum(2), rtol=1e-9, atol=1e-9)


@heavy
def test_gradients_are_finite_at_the_edges_of_the_prior(model, prior, fluxes):
    data = photometry(np.asarray(fluxes[0]), 0.1 * np.asarray(fluxes[0]))
    problem = Problem(prior, model, data)
    n = problem.dimension
    corners = jnp.concatenate([6 * jnp.eye(n), -6 * jnp.eye(n), 6 * jnp.ones((1, n))])
    corners = jnp.concatenate([corners, -6 * jnp.ones((1, n))])
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(problem.logdensity)))(corners)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient)), np.argwhere(~np.isfinite(gradient))


def test_training_draws_stay_in_the_model(name, batched):
    draw = family(name).training_draw
    redshift = jnp.full(N, 1.0)
    thetas = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), N), redshift)
    flux = batched(thetas)
    # The dustiest may come to nothing in the ultraviolet.
    assert np.all(np.isfinite(flux)) and np.all(np.asarray(flux) >= 0)
    features = jax.vmap(lambda t: params.features(t, family(name).features))(thetas)
    assert features.shape == (N, len(family(name).features))
    assert np.all(np.isfinite(features))


def test_unknown_physics():
    with pytest.raises(ValueError, match="unknown physics 'nonesuch'.*provabgs"):
        family("nonesuch")
