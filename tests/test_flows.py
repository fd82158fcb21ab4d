"""The shipped flow in a catalogue run, and its calibration on mocks."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from astropy.table import Table

from jaxsed import plots
from jaxsed.catalog import flows
from jaxsed.catalog.config import parse_config
from jaxsed.catalog.plan import resolve
from jaxsed.catalog.run import fit_catalog
from jaxsed.core.errors import JaxsedError
from jaxsed.emulators import load_emulator
from jaxsed.infer import amortised
from jaxsed.workflows import calibrate

BANDS = ("sdss_u0", "sdss_g0", "sdss_r0", "sdss_i0", "sdss_z0")
TEXT = """
[catalog]
id = "id"
redshift = "redshift"
flux_unit = "ABmag"
[model]
physics = "provabgs"
predictor = "emulator"
[likelihood]
error_floor = 0.05
[sampler]
method = "auto"
"""


def config(bands=BANDS, more=""):
    entries = (f'[[band]]\nflux = "{b}"\nerror = "{b}_error"\nfilter = "{b}"\n' for b in bands)
    return parse_config(TEXT + more + "".join(entries))


@pytest.fixture(scope="module")
def shipped():
    return amortised.load(flows.shipped_flow("provabgs_sdss"))


def test_the_shipped_flow_knows_subsets_of_its_bands(shipped):
    assert shipped.record.bands == BANDS
    assert flows.find_flow("shipped", "provabgs", BANDS, free_redshift=False) is not None
    few = flows.find_flow("shipped", "provabgs", BANDS[1:4], free_redshift=False)
    assert few.context.bands == (1, 2, 3)
    assert flows.find_flow("shipped", "provabgs", ("twomass_J",), free_redshift=False) is None
    without = flows.find_flow("shipped", "provabgs", BANDS, free_redshift=True)
    assert without.record.parameters.count("redshift") == 1
    with pytest.raises(ValueError, match="provabgs_goodss, provabgs_sdss"):
        flows.shipped_flow("euclid")


@pytest.mark.parametrize("order", [1, -1])
def test_the_flow_of_the_fewest_other_bands_is_taken(monkeypatch, order):
    """Not the first by name."""

    def flow(*bands):
        return SimpleNamespace(
            record=SimpleNamespace(model="provabgs", bands=bands), select=lambda _: bands,
            context=SimpleNamespace(free_redshift=False),
        )  # fmt: skip

    many, few, other = flow(*BANDS, "twomass_J"), flow(*BANDS), flow("twomass_J")
    monkeypatch.setattr(flows, "flow_files", lambda: [many, few, other][::order])
    monkeypatch.setattr(flows.amortised, "load", lambda path: path)
    assert flows.find_flow("shipped", "provabgs", BANDS[:2], free_redshift=False) == BANDS


def test_a_flow_that_does_not_fit_is_refused(tmp_path, shipped):
    shipped.save(tmp_path / "flow.h5")
    given = resolve(config(more=f'flow = "{tmp_path / "flow.h5"}"\n')).sampling.flow
    with pytest.raises(JaxsedError, match="does not know twomass_J"):
        flows.find_flow(given, "provabgs", ("twomass_J",), free_redshift=False)
    with pytest.raises(JaxsedError, match="of the model provabgs, not prospector"):
        flows.find_flow(given, "prospector", BANDS, free_redshift=False)
    with pytest.raises(JaxsedError, match="no such file"):
        resolve(config(more='flow = "none.h5"\n'))
    (tmp_path / "bad.h5").write_bytes(b"not HDF5")
    with pytest.raises(JaxsedError, match="not a readable"):
        flows.find_flow(tmp_path / "bad.h5", "provabgs", BANDS, free_redshift=False)


def test_a_flow_is_judged_with_the_errors_of_its_emulator(shipped):
    simulator = calibrate.simulator_of(shipped)
    emulator = load_emulator(shipped.record.emulator).select(shipped.record.bands)
    np.testing.assert_array_equal(simulator.emulator_sigma, emulator.error_ab.sigma)
    assert np.all(np.asarray(simulator.emulator_sigma) > 0)


def mock_table(shipped, n, spoil):
    """Galaxies as the flow's own; ``spoil(flux, error)`` changes some of them."""
    _, problem = calibrate.mocks_of(jax.random.key(3), calibrate.simulator_of(shipped, 0.0), n)
    sigma = 1 / np.asarray(problem.data.inverse_sigma)
    flux = np.asarray(problem.data.scaled) * sigma
    # The floor and the emulator's error are added again by the run.
    error = np.sqrt(np.maximum(sigma**2 - (0.051 * flux) ** 2, (0.002 * flux) ** 2))
    spoil(flux, error)
    table = Table({"id": np.arange(n), "redshift": np.asarray(problem.prior.redshift)})
    for k, band in enumerate(BANDS):
        table[band] = -2.5 * np.log10(np.maximum(flux[:, k], 1e-14))
        table[f"{band}_error"] = 1.0857 * error[:, k] / np.abs(flux[:, k])
    return table


@pytest.mark.slow
def test_hostile_rows_end_in_a_flag_or_another_method(tmp_path, shipped):
    def spoil(flux, error):
        flux[0, 2] += 1e6 * error[0, 2]
        error[1, 3] = 0.0
        flux[2, 0] = np.nan
        flux[3] = np.nan

    mock_table(shipped, 6, spoil).write(tmp_path / "cat.ecsv")
    out = fit_catalog(
        config(more="retries = 0\nfallback = []\n"),
        tmp_path / "cat.ecsv",
        tmp_path / "run.h5",
        progress=False,
        seed=1,
    ).table
    assert out["method"][0] != "flow+is"
    assert "colour" in out["support"][0]
    assert list(out["n_bands"][:4]) == [5, 4, 4, 0]
    assert out["flag"][3] != 0
    assert set(out["method"][4:]) == {"flow+is"}
    bad = (out["rhat_max"] > 1.01) | (out["ess_bulk_min"] < 400)
    assert np.all(out["flag"][np.asarray(bad)] != 0)


@pytest.mark.slow
def test_catalogue_by_flow_says_so_in_every_row(tmp_path, shipped):
    def spoil(flux, error):  # far brighter, and uncertainties that no survey has
        flux[0] *= 1e4
        error[1] = 3 * flux[1]

    mock_table(shipped, 12, spoil).write(tmp_path / "cat.ecsv")
    results = fit_catalog(
        config(), tmp_path / "cat.ecsv", tmp_path / "run.h5", progress=False, seed=1
    )
    out = results.table
    assert set(out["method"]) <= {"flow+is", "hmc", "nuts", "nested"}
    assert (out["method"][2:] == "flow+is").sum() >= 5
    assert out["method"][0] != "flow+is"
    assert "magnitude" in out["support"][0]
    assert "noise" in out["support"][1]
    by_flow = out["method"] == "flow+is"
    assert np.all(out["khat"][by_flow] < 0.7)
    assert np.all(out["importance_ess"][by_flow] >= 400)
    assert np.all(np.isfinite(out["log_evidence"][by_flow]))
    assert np.all(out["rhat_max"][by_flow] < 1.01)


@pytest.mark.slow
def test_the_shipped_flow_is_calibrated(tmp_path, shipped):
    found = calibrate.calibrate(shipped, mocks=600, seed=7, mcmc=60)
    calibrate.write(found, tmp_path)
    kept = json.loads((tmp_path / "calibration.json").read_text())
    assert kept["accepted"] > 0.9
    assert kept["khat_below_bar"] > 0.95
    assert kept["tarp_max_error"] < 0.06
    assert kept["hmc"]["galaxies"] >= 55
    assert kept["hmc"]["pp_max_deviation"] < 0.25
    for name in calibrate.KINDS:
        assert min(kept[name]["sbc_pvalue"].values()) > 1e-4
    for name in ("flow", "flow+is"):
        assert kept[name]["pp_max_deviation"] < 0.09
    assert "ranks_flow_is" in plots.calibration_figures(found)


@pytest.mark.parametrize(("galaxies", "testable"), [(60, True), (8, False)])
def test_few_galaxies_have_fewer_bins(galaxies, testable):
    """Of posteriors that are right, so the test of the ranks must not fail, nor be refused."""
    draws = np.random.default_rng(0).normal(size=(galaxies, calibrate.KEEP + 1, 2))
    true, found = {"a": draws[:, :1]}, {"a": draws[:, 1:]}
    features = np.random.default_rng(1).normal(size=(galaxies, 3))
    figures = calibrate._figures(true, found, features)
    values = list(figures["sbc_pvalue"].values())
    assert len(values) == 2
    assert all(1e-3 < p <= 1 for p in values) if testable else np.isnan(values).all()
