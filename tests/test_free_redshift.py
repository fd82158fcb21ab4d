"""An engine that fits redshifts: bands beyond starlight, what is told of them, and the flags."""

import dataclasses
import types
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from engine_data import CHAINS, DRAWS, Half, physics_of_ages, some_draws

from jaxsed.catalog import engine
from jaxsed.catalog.config import parse_config
from jaxsed.catalog.flags import Flag
from jaxsed.catalog.plan import resolve
from jaxsed.catalog.predictors import Predictor
from jaxsed.catalog.run import seeds_of
from jaxsed.catalog.tables import Observations
from jaxsed.core.errors import JaxsedError
from jaxsed.likelihood import DETECTION, MISSING, Photometry, RedshiftedPhotometry
from jaxsed.likelihood.redshifted import dust_share

BANDS = ("sdss_r0", "twomass_Ks", "spitzer_irac_ch2", "spitzer_irac_ch4")
REACHABLE = np.array([True, True, True, False])
N = 4
TEXT = """
[catalog]
id = "id"
redshift = "free"
flux_unit = "maggies"
[sampler]
method = "hmc"
""" + "".join(f'[[band]]\nflux = "{b}"\nerror = "{b}_e"\nfilter = "{b}"\n' for b in BANDS)


def prepared(monkeypatch, text=TEXT):
    """An engine with a stand-in for the model, as `prepare` leaves it."""
    one = engine.Engine(resolve(parse_config(text)))
    forward: Any = Half(jnp.ones(REACHABLE.sum()))
    physics: Any = physics_of_ages([0.1, 1.0])
    stand_in = Predictor(
        forward=forward, physics=physics, kind="physics", sigma=np.zeros(3),
        correlation=np.eye(3), reachable=REACHABLE, provenance={}, reason="a stand-in",
    )  # fmt: skip
    monkeypatch.setattr(engine, "make_predictor", lambda *_, **__: stand_in)
    one.prepare(np.full(N, np.nan))
    return one


def fitted(monkeypatch, one):
    """The result of four galaxies whose draws are at z = 0.2, 2, 3.99 and 0.2."""
    asked = types.SimpleNamespace()
    z = np.array([0.2, 2.0, 3.99, 0.2])[:, None, None] * np.ones((N, CHAINS, DRAWS))
    z[2, 0] = 1.0  # half of its draws

    def sample(keys, problem, method, **options):
        asked.problem = problem
        asked.samples = some_draws(problem.prior, N, 3)
        theta = asked.samples.theta._replace(redshift=z)
        return dataclasses.replace(asked.samples, theta=theta)

    monkeypatch.setattr(engine.infer, "sample", sample)
    rng = np.random.default_rng(0)
    flux = rng.lognormal(size=(N, len(BANDS))) * 1e-9
    kind = np.full(flux.shape, DETECTION, np.int8)
    kind[3, 2] = MISSING  # the band beyond starlight
    ids = np.array(list("abcd"))
    seen = Observations(
        id=ids, redshift=np.full(N, np.nan), flux=flux, error=0.1 * flux, kind=kind,
        flag=np.zeros(N, np.int64), band_names=BANDS, id_name="id", id_values=ids,
        occurrence=np.zeros(N, int), notes=(),
    )  # fmt: skip
    return one(list(ids), seen, seeds_of(0, list(ids), seen.occurrence)), asked, z


def test_bands_keep_their_place_and_lose_weight_where_the_draw_is(monkeypatch):
    one = prepared(monkeypatch)
    result, asked, z = fitted(monkeypatch, one)
    data = asked.problem.data
    assert isinstance(data, RedshiftedPhotometry)
    pivot = np.array([f.pivot for f in one.filters])[REACHABLE]
    np.testing.assert_allclose(data.pivot, np.broadcast_to(pivot, (N, 3)), rtol=1e-6)
    assert list(result.goodness.n_bands) == [3, 3, 3, 2]
    flux = asked.samples.flux
    grown = np.asarray(dust_share(pivot / (1 + z[..., None]))) * data.scaled[:, None, None]
    residual = flux * data.inverse_sigma[:, None, None] - data.scaled[:, None, None]
    chi2 = (residual**2 / (1 + grown**2)).sum(-1).min((1, 2))
    np.testing.assert_allclose(result.goodness.chi2, chi2, rtol=1e-4)
    assert (residual**2).sum(-1).min((1, 2))[0] > 1.01 * chi2[0]


def test_flags_tell_bands_without_weight_and_the_end_of_the_prior(monkeypatch):
    result, *_ = fitted(monkeypatch, prepared(monkeypatch))
    lost, dust, edge = Flag.UNREACHABLE_BAND, Flag.DUST_EMISSION, Flag.REDSHIFT_EDGE
    assert list(result.flag) == [lost | dust, lost, lost | edge, lost]


def test_notes_tell_the_prior_and_the_bands(monkeypatch):
    notes = prepared(monkeypatch).notes
    assert "uniform from 0.01 to 4, the default" in notes[0] and "redshift_prior" in notes[0]
    assert "lose their weight" in notes[1] and notes[1].endswith(": spitzer_irac_ch2")
    own = TEXT.replace('"free"\n', '"free"\nredshift_prior = [0.5, 8]\n')
    assert prepared(monkeypatch, own).notes[0] == "redshift prior: uniform from 0.5 to 8"
    far = TEXT.replace('"free"\n', '"free"\nredshift_prior = [1, 8]\n')
    one = prepared(monkeypatch, far)
    assert len(one.notes) == 1  # 4.5 micron are starlight at any of these redshifts
    assert isinstance(fitted(monkeypatch, one)[1].problem.data, Photometry)


def test_a_model_whose_dust_shines_keeps_all_bands(monkeypatch):
    one = prepared(monkeypatch)
    one.galaxies = dataclasses.replace(one.galaxies, emits=True)
    result, asked, _ = fitted(monkeypatch, one)
    assert isinstance(asked.problem.data, Photometry)
    assert not np.any(result.flag & Flag.DUST_EMISSION)


def test_correlated_errors_are_refused(monkeypatch):
    one = prepared(monkeypatch, TEXT + "[likelihood]\nemulator_covariance = true\n")
    with pytest.raises(JaxsedError, match="emulator_covariance: not with a free redshift"):
        fitted(monkeypatch, one)
