"""From observations to a chunk of results: what goes into the sampler and what is made of it."""

import dataclasses
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_data import CHAINS, DRAWS, Half, physics_of_ages, some_draws

from jaxsed import infer
from jaxsed.catalog import chunk, engine
from jaxsed.catalog.config import parse_config
from jaxsed.catalog.flags import Flag
from jaxsed.catalog.plan import resolve
from jaxsed.catalog.predictors import Predictor
from jaxsed.catalog.run import seeds_of
from jaxsed.catalog.tables import Observations
from jaxsed.core.diagnostics import Goodness, described
from jaxsed.likelihood import MAG_TO_RELATIVE

BANDS = ("sdss_u0", "sdss_g0", "sdss_r0", "sdss_i0", "sdss_z0")
N = 3
SIGMA = np.array([0.03, 0.01, 0.02, 0.04, 0.0])  # mag
FLOOR = 0.04
REACHABLE = np.array([True, True, False, True, True])
CONFIG = f"""
[catalog]
id = "id"
redshift = "z"
flux_unit = "maggies"
[likelihood]
error_floor = {FLOOR}
[sampler]
method = "hmc"
""" + "".join(f'[[band]]\nflux = "{b}"\nerror = "{b}_e"\nfilter = "{b}"\n' for b in BANDS)


@pytest.fixture
def made(monkeypatch):
    """An engine whose sampler gives known draws, and what the sampler was asked."""
    asked = types.SimpleNamespace(draws=None)
    one = engine.Engine(resolve(parse_config(CONFIG)))
    forward: Any = Half(jnp.ones(REACHABLE.sum()))
    physics: Any = physics_of_ages([0.1, 1.0, 5.0])
    one._predictor = Predictor(
        forward=forward, physics=physics, kind="emulator", sigma=SIGMA[REACHABLE], correlation=None,
        reachable=REACHABLE, provenance={}, reason="a stand-in",
    )  # fmt: skip

    def sample(keys, problem, method, **options):
        asked.keys, asked.problem, asked.options = keys, problem, options
        return asked.draws(problem)

    monkeypatch.setattr(engine.infer, "sample", sample)
    asked.draws = draws
    return one, asked


def draws(problem):
    """Of the three galaxies in the bands that the model reaches."""
    return some_draws(problem.prior, N, REACHABLE.sum())


def observations():
    """Three galaxies: one with an upper limit, one without the unreachable band, one too far."""
    rng = np.random.default_rng(1)
    kind = np.ones((N, len(BANDS)), np.int8)
    kind[0, 3] = 2
    kind[1, [0, 2]] = 0
    flux = np.where(kind == 0, 0.0, rng.lognormal(size=kind.shape) * 1e-9)
    error = np.where(kind == 0, 1.0, 1e-10 * (1 + rng.random(kind.shape)))
    ids = np.array(["a", "b", "c"])
    return Observations(
        id=ids, redshift=np.array([0.1, 0.2, 0.6]), flux=flux, error=error, kind=kind,
        flag=np.zeros(N, np.int64), band_names=BANDS, id_name="id", id_values=ids,
        occurrence=np.zeros(N, int), notes=(),
    )  # fmt: skip


def fitted(made):
    one, asked = made
    seen = observations()
    seeds = seeds_of(3, list(seen.id), seen.occurrence)
    return one(list(seen.id), seen, seeds), asked, seen, seeds


def test_all_errors_enter_the_likelihood(made):
    _, asked, seen, _ = fitted(made)
    flux, error, kind = (a[:, REACHABLE] for a in (seen.flux, seen.error, seen.kind))
    emulator = MAG_TO_RELATIVE * SIGMA[REACHABLE]
    total = np.sqrt(error**2 + (emulator * flux) ** 2 + (FLOOR * flux) ** 2)
    data = asked.problem.data
    np.testing.assert_allclose(data.inverse_sigma, np.where(kind == 1, 1 / total, 0), rtol=1e-5)
    np.testing.assert_allclose(data.scaled, np.where(kind == 1, flux / total, 0), rtol=1e-5)
    np.testing.assert_allclose(data.limit_inverse_sigma, np.where(kind == 2, 1 / error, 0), 1e-5)
    np.testing.assert_allclose(asked.problem.prior.redshift, seen.redshift, rtol=1e-6)


def test_correlated_errors_enter_the_likelihood_where_asked(made):
    one, asked = made
    n = REACHABLE.sum()
    correlation = 0.8 * np.ones((n, n)) + 0.2 * np.eye(n)
    one._predictor = dataclasses.replace(one.predictor, correlation=correlation)
    fitted(made)
    assert asked.problem.data.whitener is None
    one.plan = dataclasses.replace(one.plan, emulator_covariance=True)
    result, asked, *_ = fitted(made)
    whitener = np.asarray(asked.problem.data.whitener)
    assert np.abs(whitener - np.eye(n)).max() > 0.01
    data, flux = asked.problem.data, draws(asked.problem).flux
    residual = flux * data.inverse_sigma[:, None, None] - data.scaled[:, None, None]
    chi2 = (np.einsum("gij,gcdj->gcdi", whitener, residual) ** 2).sum(-1).min((1, 2))
    np.testing.assert_allclose(result.goodness.chi2, chi2, rtol=1e-4)


def test_every_galaxy_has_the_key_of_its_seed(made):
    _, asked, _, seeds = fitted(made)
    words = np.asarray(jax.random.key_data(asked.keys))
    np.testing.assert_array_equal(words, seeds)
    assert len(np.unique(words, axis=0)) == N


def test_settings_reach_the_sampler():
    more = '[sampler]\nmethod = "nuts"\nchains = 6\nwarmup = 150\ndraws = 250\nretries = 1\n'
    more += 'fallback = ["nested"]\nlanes = 8\nmax_tree_depth = 7\ntarget_accept = 0.9\n'
    config = parse_config(CONFIG.replace('[sampler]\nmethod = "hmc"\n', more))
    found = resolve(config).sampling
    options = {"chains": 6, "draws": 250, "retries": 1}
    nuts = infer.NUTS(**options, warmup=150, max_tree_depth=7, target_acceptance=0.9)
    assert found.method == engine.Engine(resolve(config)).method == nuts
    assert found.fallback == (infer.NestedSlice(**options),)
    assert found.slots == 8
    # What is left out is the method's own.
    other = CONFIG.replace('method = "hmc"', 'method = "mclmc"\nfallback = ["nuts"]')
    found = resolve(parse_config(other)).sampling
    assert (found.method, found.fallback) == (infer.MCLMC(), (infer.NUTS(),))


def test_a_flow_hands_over_to_the_configured_sampler(made, monkeypatch):
    one, _ = made
    config = parse_config(CONFIG.replace('method = "hmc"', 'method = "auto"\ndraws = 250'))
    one.plan = resolve(config)
    flow = types.SimpleNamespace(checksum=lambda: "1", record=types.SimpleNamespace(text="a flow"))
    asked = []
    monkeypatch.setattr(
        engine, "find_flow", lambda *where, **options: asked.append(where) or flow
    )
    one._find_flow(one.plan.sampling.flow)
    assert asked[0][:2] == ("shipped", "provabgs")
    assert one.method == infer.FlowImportance(flow=flow, sampler=infer.HMC(draws=250))
    assert one.provenance["flow"] == "a flow"


def test_chi2_is_that_of_the_best_draw_over_detections(made):
    result, asked, seen, _ = fitted(made)
    flux = draws(asked.problem).flux
    sigma = 1 / np.maximum(np.asarray(asked.problem.data.inverse_sigma), 1e-30)
    gap = (flux - seen.flux[:, None, None, REACHABLE]) / sigma[:, None, None]
    detected = (seen.kind == 1)[:, None, None, REACHABLE]
    every = np.where(detected, gap**2, 0).sum(-1)
    np.testing.assert_allclose(result.goodness.chi2, every.min((1, 2)), rtol=1e-4)
    assert np.all(every.max((1, 2)) > 2 * result.goodness.chi2)  # the draws do differ


def test_bands_are_counted_with_limits_and_without(made):
    result, *_ = fitted(made)
    assert list(result.goodness.n_bands) == [4, 3, 4]
    assert list(result.goodness.n_detected) == [3, 3, 4]


def test_diagnostics_are_those_of_the_sampler(made):
    result, asked, *_ = fitted(made)
    given = draws(asked.problem).diagnostics
    assert set(described(result.diagnostics)) >= {"rhat_max", "khat", "support", "method", "run"}
    for name in described(given):
        np.testing.assert_array_equal(getattr(result.diagnostics, name), getattr(given, name))


def test_flags_of_the_engine(made):
    result, *_ = fitted(made)
    unreachable, outside = int(Flag.UNREACHABLE_BAND), int(Flag.OUTSIDE_EMULATOR)
    assert list(result.flag) == [unreachable, 0, unreachable | outside]


def test_a_small_share_of_draws_outside_the_emulator_is_no_flag(made):
    one, asked = made

    def few_outside(share):
        def found(problem):
            given = draws(problem)
            z = np.full((N, CHAINS, DRAWS), 0.1)
            z[0].flat[: round(share * CHAINS * DRAWS)] = 0.9
            return dataclasses.replace(given, theta=given.theta._replace(redshift=z))

        return found

    outside = int(Flag.OUTSIDE_EMULATOR)
    for share, flagged in ((0.0, 0), (0.0125, outside), (1.0, outside)):
        asked.draws = few_outside(share)
        assert fitted(made)[0].flag[0] & outside == flagged


def test_predicted_fluxes_are_ordered_percentiles_in_their_bands(made):
    result, asked, *_ = fitted(made)
    flux = draws(asked.problem).flux.reshape(N, -1, REACHABLE.sum())
    low, middle, high = np.moveaxis(result.predicted_flux, 1, 0)
    assert np.isnan(result.predicted_flux[..., ~REACHABLE]).all()
    for found, q in ((low, 15.865525393), (middle, 50.0), (high, 84.134474607)):
        np.testing.assert_allclose(found[:, REACHABLE], np.percentile(flux, q, axis=1), rtol=1e-6)


def test_draws_come_back_by_name(made):
    result, asked, *_ = fitted(made)
    given = draws(asked.problem)
    assert set(result.theta) == set(given.theta._fields) - {"redshift"}  # which is known
    for name, values in result.theta.items():
        np.testing.assert_array_equal(values, getattr(given.theta, name))
    np.testing.assert_array_equal(result.derived["a_v"], given.derived["a_v"])
    np.testing.assert_array_equal(result.log_density, given.log_density)
    np.testing.assert_array_equal(result.per_galaxy["sfh_age"], [[0.1, 1.0, 5.0]] * N)


def test_what_is_stored_of_a_chunk(made):
    result, *_ = fitted(made)
    given = np.array([0, int(Flag.BAD_PHOTOMETRY), 0])
    tree = chunk.datasets(result, given, 20)
    for name, values in (*result.theta.items(), *result.derived.items()):
        expected = np.percentile(values.reshape(N, -1), [15.865525393, 50, 84.134474607], axis=1).T
        np.testing.assert_allclose(tree[f"summary/{name}"], expected, rtol=1e-5, err_msg=name)
        assert np.all(np.diff(tree[f"summary/{name}"], axis=1) > 0)
    np.testing.assert_array_equal(tree["diagnostics/n_bands"], [4, 3, 4])
    np.testing.assert_array_equal(tree["diagnostics/n_detected"], [3, 3, 4])
    np.testing.assert_allclose(tree["diagnostics/chi2"], result.goodness.chi2, rtol=1e-6)
    for name, how in described(result.diagnostics).items():
        values, given_values = tree[f"diagnostics/{name}"], getattr(result.diagnostics, name)
        assert values.dtype == np.dtype(how.dtype)
        if how.dtype.startswith("S"):
            given_values = np.char.encode(given_values)
        np.testing.assert_array_equal(values, given_values.astype(how.dtype))
    flag = tree["diagnostics/flag"]
    assert np.all(flag & Flag.NOT_CONVERGED)  # R-hat of one, not a number of another, the tail
    assert list(flag & Flag.DIVERGENCES > 0) == [False, True, False]
    assert list(flag & Flag.UNREACHABLE_BAND > 0) == [True, False, True]
    assert list(flag & Flag.BAD_PHOTOMETRY > 0) == [False, True, False]
    assert not np.any(flag & Flag.NUMERICAL_FAILURE)
    broken = result._replace(log_density=np.where(np.arange(N)[:, None, None] == 1, np.nan, 0.0)
                             + result.log_density)  # fmt: skip
    flag = chunk.datasets(broken, given, 20)["diagnostics/flag"]
    assert list(flag & Flag.NUMERICAL_FAILURE > 0) == [False, True, False]


def test_upper_limits_do_not_hide_a_poor_fit(made):
    """A chi2 that three detections do not explain, though 40 bands would."""
    result, *_ = fitted(made)
    goodness = Goodness(
        chi2=np.full(N, 30.0), n_detected=np.array([3, 3, 40]), n_bands=np.array([40, 3, 40])
    )
    result = result._replace(goodness=goodness)
    flag = chunk.datasets(result, np.zeros(N, int), 20)["diagnostics/flag"]
    assert list(flag & Flag.POOR_FIT > 0) == [True, True, False]


def test_an_engine_must_be_prepared_to_have_a_predictor():
    one = engine.Engine(resolve(parse_config(CONFIG, folder=Path())))
    with pytest.raises(RuntimeError, match="prepare"):
        _ = one.predictor
