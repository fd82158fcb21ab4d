"""What a notebook types: physics by name, a problem, a posterior, its draws and pictures."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import jaxsed
from jaxsed.core.diagnostics import stacked
from jaxsed.emulators import load_emulator
from jaxsed.infer import HMC, Samples
from jaxsed.likelihood import RedshiftedPhotometry, spectrum
from jaxsed.problem import stack

BANDS = ("sdss_u0", "sdss_g0", "sdss_r0", "sdss_i0", "sdss_z0")


@pytest.fixture(scope="module")
def posterior():
    """Of a galaxy of which all is known but mass and dust, so that few draws are enough; by an
    emulator, which compiles in a fifth of the time of the physics that derives the rest."""
    galaxy = jaxsed.galaxy("provabgs", BANDS, redshift=(0.0, 0.2))
    free = galaxy.prior(redshift=0.1)
    prior = free._replace(
        beta=np.full(4, 0.25), f_burst=0.1, t_burst=3.0, gamma1=0.01, gamma2=0.01, dust1=0.3,
        dust_index=-0.7,
    )  # fmt: skip
    theta = prior._replace(log_mass_formed=10.3, dust2=0.4)
    flux = np.asarray(jax.jit(galaxy)(theta), float)
    data = jaxsed.photometry(flux, 0.05 * flux, error_floor=0.0)
    problem = jaxsed.Problem(prior, load_emulator("provabgs_sdss"), data)
    quick = HMC(
        warmup=100, draws=100, starts=2, warmup_chains=4, retries=3,
        proposals=0, warmup_proposals=0,  # one and the same program before and after the warm-up
    )  # fmt: skip
    return jaxsed.sample(jax.random.key(0), problem, quick, derive=galaxy)


def test_draws_by_name_of_parameters_and_derived_quantities(posterior):
    assert posterior.diagnostics.passes()
    for name, truth in (("log_mass_formed", 10.3), ("dust2", 0.4), ("a_v", 1.086 * 0.4)):
        draws = posterior[name]
        assert draws.shape == (4, 100)
        assert abs(draws.mean() - truth) < 3 * draws.std(), name
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
