"""What a notebook types: physics by name, a problem, a posterior, its draws and pictures."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import jaxsed
from jaxsed.core.diagnostics import Diagnostics, stacked
from jaxsed.emulators import load_emulator
from jaxsed.infer import HMC, Samples, convergence
from jaxsed.likelihood import RedshiftedPhotometry, spectrum
from jaxsed.problem import stack

BANDS = ("sdss_u0", "sdss_g0", "sdss_r0", "sdss_i0", "sdss_z0")


@pytest.fixture(scope="module")
def galaxy():
    return jaxsed.galaxy("provabgs", BANDS, redshift=(0.0, 0.2))


@pytest.fixture(scope="module")
def problem(galaxy):
    """Of a galaxy of which all is known but mass and dust."""
    prior = galaxy.prior(redshift=0.1)._replace(
        beta=np.full(4, 0.25), f_burst=0.1, t_burst=3.0, gamma1=0.01, gamma2=0.01, dust1=0.3,
        dust_index=-0.7,
    )  # fmt: skip
    flux = np.asarray(galaxy(prior._replace(log_mass_formed=10.3, dust2=0.4)), float)
    data = jaxsed.photometry(flux, 0.05 * flux, error_floor=0.0)
    return jaxsed.Problem(prior, load_emulator("provabgs_sdss"), data)


@pytest.fixture(scope="module")
def posterior(galaxy, problem):
    """Draws that are put together by hand: sampling takes long to compile."""
    rng = np.random.default_rng(0)
    known = {
        name: np.broadcast_to(value, (4, 100, *np.shape(value)))
        for name, value in problem.prior._asdict().items()
        if name not in ("log_mass_formed", "dust2")
    }
    theta = type(problem.prior)(
        **known, log_mass_formed=rng.normal(10.3, 0.03, (4, 100)),
        dust2=rng.normal(0.4, 0.05, (4, 100)),
    )  # fmt: skip

    @jax.jit
    @jax.vmap
    @jax.vmap
    def predicted(theta):
        return problem.forward(theta), galaxy.derived(theta)

    flux, derived = jax.tree.map(np.asarray, predicted(theta))
    x = np.stack([theta.log_mass_formed, theta.dust2], axis=-1)
    found = convergence(x[None])
    good = {f.name: 0 for f in dataclasses.fields(Diagnostics)} | {"method": "by hand"}
    return jaxsed.Posterior(
        theta=theta, x=x, log_density=np.zeros((4, 100)), flux=flux, derived=derived._asdict(),
        convergence=type(found)(*(a[0] for a in found)), diagnostics=Diagnostics(**good),
        slot_efficiency=1.0, problem=problem, derive=galaxy,
    )  # fmt: skip


@pytest.mark.slow
def test_a_galaxy_is_sampled_and_its_truth_is_found(galaxy, problem):
    found = jaxsed.sample(jax.random.key(0), problem, HMC(retries=2), derive=galaxy)
    assert found.diagnostics.passes()
    for name, truth in (("log_mass_formed", 10.3), ("dust2", 0.4)):
        assert abs(found[name].mean() - truth) < 3 * found[name].std(), name


def test_draws_by_name_of_parameters_and_derived_quantities(posterior):
    np.testing.assert_array_equal(posterior["dust2"], posterior.theta.dust2)
    np.testing.assert_allclose(posterior["a_v"], 1.0857 * posterior["dust2"], rtol=1e-4)
    assert np.all(posterior["log_mass_surviving"] < posterior["log_mass_formed"])
    with pytest.raises(KeyError, match="log_mass_surviving"):
        posterior["mass"]


def test_derived_quantities_are_those_of_the_forward_model(posterior, monkeypatch):
    """Unless another model is given, or it has none."""
    given = []
    samples = Samples(**{f.name: getattr(posterior, f.name) for f in dataclasses.fields(Samples)})

    def sample(key, problem, method, *, derive):
        given.append(derive)
        return samples

    monkeypatch.setattr(jaxsed.posterior.infer, "sample", sample)
    galaxy, emulated = posterior.derive, posterior.problem
    direct = emulated.replace(forward=galaxy)
    assert jaxsed.sample(jax.random.key(0), direct).derive is galaxy
    assert jaxsed.sample(jax.random.key(0), direct, derive=emulated).derive is emulated
    assert jaxsed.sample(jax.random.key(0), emulated).derive is None
    assert given[0] is galaxy and given[1] is emulated and given[2] is None


def test_history_of_star_formation_forms_the_mass(posterior):
    age, rate = posterior.sfh()
    assert rate.shape == (4, 100, age.size)
    formed = (rate * np.diff(age, prepend=0.0) * 1e9).sum(axis=-1)
    ratio = formed / 10 ** posterior["log_mass_formed"]
    # The oldest interval ends with the universe, not at its node.
    assert np.all((ratio > 0.95) & (ratio < 1.3))


def test_it_becomes_an_arviz_object(posterior):
    found = posterior.to_arviz()
    np.testing.assert_array_equal(found.posterior["dust2"].values, posterior["dust2"])
    assert "log_mass_surviving" in found.posterior


def test_pictures(posterior):
    sed = posterior.plot_sed()
    top, bottom = sed.axes
    assert top.get_yscale() == "log"
    assert top.get_title("left").startswith("z = 0.1  ")  # which is known: no errors
    assert posterior.plot_sed(unit="ABmag").axes[0].yaxis_inverted()
    history = posterior.plot_sfh().axes[0]
    assert history.get_xlabel() == "lookback time [Gyr]"
    corner = posterior.plot_corner(names=("log_mass_formed", "dust2"))
    assert len(corner.axes) == 4


def test_chi_square_of_a_picture_is_that_of_the_data(posterior):
    problem, flux = posterior.problem, np.asarray(posterior.flux)

    def title(data):
        changed = dataclasses.replace(posterior, problem=problem.replace(data=data))
        return changed.plot_sed().axes[0].get_title("left")

    whitener = np.eye(5) + 0.5 * np.eye(5, k=1)
    apart = problem.data.scaled + 3.0 * np.array([1, -1, 1, -1, 1])
    data = problem.data.replace(whitener=whitener, scaled=apart)
    residual = (flux * data.inverse_sigma - data.scaled) @ whitener.T
    expected = (residual**2).sum(-1).min()
    assert f"= {expected:.1f} in 5" in title(data)
    redshifted = RedshiftedPhotometry(data.replace(whitener=None), np.full(5, 5e3))
    plain = ((flux * data.inverse_sigma - data.scaled) ** 2).sum(-1).min()
    assert f"= {plain:.1f} in 5" in title(redshifted)
    assert abs(expected - plain) > 1
    with pytest.raises(ValueError, match="not photometry.*spectrum_fit"):
        title(spectrum(np.ones(4), np.ones(4)))


def test_a_batch_is_a_posterior_of_each(posterior):
    parts = ("theta", "x", "log_density", "flux", "derived", "convergence")
    pairs = {
        name: jax.tree.map(lambda a: np.stack([np.zeros_like(a), a]), getattr(posterior, name))
        for name in parts
    }
    batch = dataclasses.replace(
        posterior, **pairs, diagnostics=stacked([posterior.diagnostics] * 2),
        problem=stack([posterior.problem] * 2),
    )  # fmt: skip
    assert batch["dust2"].shape == (2, 4, 100)
    with pytest.raises(ValueError, match="choose one"):
        batch.plot_sed()
    one = batch.galaxy(1)
    np.testing.assert_array_equal(one["dust2"], batch["dust2"][1])
    assert one.problem.data.scaled.shape == (5,)
    assert one.plot_sed().axes


def test_wrong_names_say_what_there_is():
    with pytest.raises(ValueError, match="unknown physics 'bc03'"):
        jaxsed.galaxy("bc03", BANDS, redshift=0.1)
    with pytest.raises(ValueError, match="sdss_q0"):
        jaxsed.galaxy("provabgs", ("sdss_q0",), redshift=0.1)
