"""The relation of stellar to halo mass, and the mass function that follows from it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed import halos as ha
from jaxsed import params
from jaxsed.halos import connection
from jaxsed.halos.connection import Relation
from jaxsed.infer import NUTS, sample

EDGES = np.arange(9.0, 12.01, 0.25)
BROKEN = Relation(12.0, -1.5, 2.0, 0.5, 0.4, -1.0, 0.2, 0.0)


@pytest.fixture(scope="module")
def model():
    return ha.galaxy_halo(EDGES)


def test_the_relation_is_that_of_the_universemachine(shared_data):
    """The published parameters in the published form, written out here in numpy."""
    with open(shared_data / "halos" / "um_dr1_smhm_params.json") as file:
        p = json.load(file)["med_all"]
    for z in (0.0, 0.1, 1.0):
        a, ln_a = 1 / (1 + z), np.log(1 / (1 + z))
        m1 = p["M_1"] + p["M_1_A"] * (a - 1) - p["M_1_A2"] * ln_a + p["M_1_Z"] * z
        e = p["EFF_0"] + p["EFF_0_A"] * (a - 1) - p["EFF_0_A2"] * ln_a + p["EFF_0_Z"] * z
        alpha = p["ALPHA"] + p["ALPHA_A"] * (a - 1) - p["ALPHA_A2"] * ln_a + p["ALPHA_Z"] * z
        beta = p["BETA"] + p["BETA_A"] * (a - 1) + p["BETA_Z"] * z
        gamma = 10 ** (p["GAMMA"] + p["GAMMA_A"] * (a - 1) + p["GAMMA_Z"] * z)
        mass = np.linspace(10.5, 14.0, 30)
        x = mass - m1
        expected = m1 + e - np.log10(10 ** (-alpha * x) + 10 ** (-beta * x))
        expected += gamma * np.exp(-0.5 * (x / p["DELTA"]) ** 2)
        found = connection.stellar_mass(ha.universemachine(z), jnp.asarray(mass))
        np.testing.assert_allclose(found, expected, atol=6e-3)


EVOLUTION = {
    0.0: (8.559, 10.348, 11.056), 1.0: (8.189, 10.334, 10.874), 2.0: (8.082, 10.020, 10.861),
    4.0: (8.272, 9.995, 10.662),
}  # fmt: skip
"""log10 stellar mass at peak masses of 10^11, 10^12 and 10^13 Msun by redshift: the UniverseMachine
DR1's file of parameters, all galaxies, in the form of Behroozi et al. (2019), worked out apart."""


@pytest.mark.parametrize("redshift", EVOLUTION)
def test_the_relation_evolves_as_published(redshift):
    found = connection.stellar_mass(ha.universemachine(redshift), jnp.array([11.0, 12.0, 13.0]))
    np.testing.assert_allclose(found, EVOLUTION[redshift], atol=6e-3)


def test_halos_are_those_of_the_redshift():
    """Against colossus, called apart: numbers of halos above 10^13 Msun, and the growth since."""
    from colossus.cosmology import cosmology
    from colossus.lss import mass_function

    heavy = connection.GRID >= 13.0
    numbers = []
    for z in (0.0, 0.5, 1.0):
        found = np.asarray(ha.galaxy_halo(EDGES, redshift=z).centrals, float)[heavy].sum()
        cosmology.setCosmology(
            "planck-like", flat=True, H0=67.8, Om0=0.307, Ob0=0.048, sigma8=0.823, ns=0.96,
            persistence="",
        )  # fmt: skip
        ln_mass = np.log(10.0) * np.arange(13.0, 15.8, 0.005)
        per_ln = mass_function.massFunction(
            np.exp(ln_mass) * 0.678, z, q_in="M", q_out="dndlnM", mdef="vir", model="tinker08"
        )
        expected = np.trapezoid(per_ln, ln_mass) * 0.678**3
        assert found == pytest.approx(expected, rel=0.04)
        numbers.append(found)
    assert numbers[0] > 1.2 * numbers[1] > 1.2 * 1.4 * numbers[2]
    with pytest.raises(ValueError, match="no mass function of halos at redshift 4"):
        ha.galaxy_halo(EDGES, redshift=4.0)


def test_errors_of_a_mass_function_are_the_mean_of_both_sides(tmp_path):
    path = tmp_path / "a.smf"
    path.write_text("# low high phi up down\n9 9.1 1e-2 1e-3 3e-3\n9.1 9.3 5e-3 4e-4 2e-4\n")
    edges, phi, error = ha.read_smf(path)
    np.testing.assert_allclose(edges, [9.0, 9.1, 9.3])
    np.testing.assert_allclose(phi, [1e-2, 5e-3])
    np.testing.assert_allclose(error, [2e-3, 3e-4])


def test_halos_and_satellites_are_those_of_a_simulation(shared_data):
    """Peak masses of mini-Millennium: a volume of its size has a scatter of several percent."""
    with np.load(shared_data / "halos" / "mini_millennium_z0.npz", allow_pickle=False) as data:
        mass = np.log10(np.maximum(data["mpeak"].astype(float), 1e-9) * 1e10 / 0.73)
    model = ha.galaxy_halo(EDGES, redshift=0.0, hubble=0.73, matter=0.25, baryons=0.045,
                           sigma8=0.9, tilt=1.0)  # fmt: skip
    volume = (62.5 / 0.73) ** 3
    for low, high in ((11.5, 12.0), (12.0, 12.5), (12.5, 13.0)):
        inside = (connection.GRID >= low) & (connection.GRID < high)
        expected = np.asarray(model.centrals + model.satellites)[inside].sum() * volume
        assert np.sum((mass >= low) & (mass < high)) == pytest.approx(expected, rel=0.2)


def test_galaxies_are_as_many_as_halos(model):
    """Bins that hold all stellar masses hold all halos."""
    wide = model.replace(edges=jnp.array([-30.0, 30.0]))
    total = float(wide(BROKEN)[0] * 60.0)
    assert total == pytest.approx(float(jnp.sum(model.centrals + model.satellites)), rel=1e-4)


def test_the_sum_is_that_of_drawn_galaxies(model):
    generator = np.random.default_rng(0)
    rate = np.asarray(model.centrals + model.satellites, float)
    volume = 2e6
    halos = np.repeat(connection.GRID, generator.poisson(rate * volume))
    mean = np.asarray(connection.stellar_mass(BROKEN, jnp.asarray(halos, jnp.float32)))
    spread = np.hypot(BROKEN.scatter, connection.OBSERVED_SCATTER)
    counts = np.histogram(mean + spread * generator.normal(size=halos.size), EDGES)[0]
    expected = np.asarray(model(BROKEN)) * np.diff(EDGES) * volume
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected) + 1)


def test_the_posterior_has_finite_gradients_and_its_peak_at_the_truth(model):
    phi = np.asarray(model(BROKEN))
    problem = ha.connection_problem(EDGES, phi, 0.05 * phi, floor=0.0)
    theta = jax.tree.map(jnp.asarray, BROKEN)
    x, chi2 = jax.jit(lambda t: (problem.unconstrain(t), problem.chi2(problem.forward(t))))(theta)
    assert float(chi2) == pytest.approx(0.0, abs=1e-6)
    places = jnp.concatenate([x[None], 3 * jax.random.normal(jax.random.key(0), (200, x.size))])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(problem.logdensity)))(places)
    assert np.isfinite(values).all() and np.isfinite(slopes).all()


def test_stellar_masses_stay_in_place_as_the_bump_changes():
    """What the coordinates are made for."""
    prior = connection.prior()
    theta = jax.tree.map(jnp.asarray, BROKEN._replace(log10_gamma=-2.5))
    x = jax.jit(lambda theta: params.unconstrain(prior, theta))(theta)
    index = Relation._fields.index("log10_gamma")
    other = jax.jit(lambda x: params.constrain(prior, x)[0])(x.at[index].set(1.0))
    assert float(other.log10_gamma) > -0.7
    mass = jnp.linspace(11.0, 13.5, 20)
    gap = connection.stellar_mass(other, mass) - connection.stellar_mass(theta, mass)
    bent = connection.stellar_mass(theta._replace(log10_gamma=other.log10_gamma), mass)
    assert np.abs(gap).max() < 0.3 * np.abs(bent - connection.stellar_mass(theta, mass)).max()


def test_the_coordinates_do_not_change_the_posterior(model):
    phi = np.asarray(model(BROKEN))
    problem = ha.connection_problem(EDGES, phi, 0.05 * phi)
    own = Relation(*(getattr(leaf, "base", leaf) for leaf in problem.prior))
    plain = dataclasses.replace(problem, prior=own)

    def both(u):
        x = problem.unconstrain(plain.constrain(u))
        slopes = jax.jacfwd(lambda x: params.constrain(problem.prior, x)[1])(x)
        return x, problem.logdensity(x), plain.logdensity(u), slopes

    places = 0.5 * jax.random.normal(jax.random.key(0), (5, 8))
    x, density, expected, slopes = jax.jit(jax.vmap(both))(places)
    assert (np.abs(x - places).max(axis=1) > 0.01).all()
    np.testing.assert_allclose(density, expected, rtol=1e-3)
    np.testing.assert_allclose(np.linalg.slogdet(slopes)[1], 0.0, atol=1e-4)


@pytest.mark.slow
def test_the_posterior_of_a_mock_converges_and_holds_the_truth(model):
    truth = ha.universemachine(0.1)
    phi = np.asarray(model(truth), float)
    phi += 0.05 * phi * np.random.default_rng(0).normal(size=phi.size)
    problem = ha.connection_problem(EDGES, phi, 1e-3 * phi)
    samples = sample(
        jax.random.key(0), problem, NUTS(target_acceptance=0.95), derive=problem.forward
    )
    assert samples.diagnostics.passes()
    assert samples.diagnostics.divergences == 0
    expected = {**truth._asdict(), **model.derived(truth)._asdict()}
    for name, draws in {**samples.theta._asdict(), **samples.derived}.items():
        assert abs(draws.mean() - expected[name]) < 3 * draws.std(), name


def test_cosmology_of_others_stays_set():
    from colossus.cosmology import cosmology

    cosmology.setCosmology("WMAP9", persistence="")
    ha.galaxy_halo(EDGES)
    assert cosmology.getCurrent().name == "WMAP9"


def test_observed_mass_functions(tmp_path, shared_data):
    edges, phi, error = ha.read_smf(shared_data / "halos" / "moustakas_z0.01_z0.20.smf")
    assert (edges[0], edges[-1], phi.size) == (9.0, 12.0, 30)
    assert phi[0] == pytest.approx(0.012931, rel=1e-3)
    assert error[0] == pytest.approx(0.00048, rel=2e-2)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.smf"
    with pytest.raises(FileNotFoundError):
        ha.read_smf(path)
    path.write_text("9 9.1 1e-2 1e-3\n")
    with pytest.raises(ValueError, match="five columns"):
        ha.read_smf(path)
    path.write_text("9 9.1 1e-2 1e-3 1e-3\n9.3 9.4 1e-2 1e-3 1e-3\n")
    with pytest.raises(ValueError, match="join"):
        ha.read_smf(path)
    with pytest.raises(ValueError, match="edges"):
        ha.connection_problem([9, 10], [1e-2, 1e-2], [1e-3, 1e-3])
    with pytest.raises(ValueError, match="error above zero"):
        ha.connection_problem([9, 10, 11], [1e-2, 1e-2], [1e-3, 0.0])
