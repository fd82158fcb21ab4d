"""What is read back: draws, percentiles, table, provenance, arviz."""

import dataclasses

import numpy as np
import pytest
from astropy.table import Table
from fake_engine import CONFIG, FakeEngine, write_inputs

import jaxsed
from jaxsed.catalog import chunk, flags
from jaxsed.catalog.flags import Flag
from jaxsed.catalog.results import load_results
from jaxsed.catalog.run import fit_catalog
from jaxsed.core.errors import JaxsedError

PERCENTILES = [
    f"{name}_{q}"
    for name in ("log_mass_surviving", "log_mass_formed", "log_sfr_100myr", "log_sfr_1gyr",
                 "log_z_mw", "t_age_mw", "a_v", "t50")
    for q in ("p16", "p50", "p84")
]  # fmt: skip
DIAGNOSTICS = [
    "chi2", "n_bands", "n_detected", "rhat_max", "ess_bulk_min", "ess_tail_min", "divergences",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of 10 galaxies, one without a redshift."""
    folder = tmp_path_factory.mktemp("run")
    catalog, config = write_inputs(folder)
    lines = catalog.read_text().splitlines()
    cells = lines[3].split(",")
    lines[3] = ",".join([cells[0], "-1", *cells[2:]])
    catalog.write_text("\n".join(lines) + "\n")
    for name in ("run.ecsv", "run.fits", "run.csv"):
        fit_catalog(
            config, catalog, folder / "run.h5", folder / name,
            seed=4, engine=FakeEngine(), resume=True, progress=False,
        )  # fmt: skip
    return folder


@pytest.fixture
def results(folder):
    return load_results(folder / "run.h5")


def test_table_has_exactly_the_documented_columns(results):
    expected = ["ID", "redshift", *PERCENTILES, *DIAGNOSTICS, "method", "flag", "flag_text"]
    assert results.table.colnames == expected
    assert len(results.table) == 10
    assert results.table["ID"].tolist() == list(range(101, 111))
    assert str(results.table["t_age_mw_p50"].unit) == "Gyr"
    assert results.table["method"].tolist()[1:4] == ["fake", "none", "fake"]


def test_evidence_has_columns_where_the_method_finds_it(tmp_path):
    class Nested(FakeEngine):
        def __call__(self, ids, observations, seeds):
            n = len(ids)
            evidence = {"log_evidence": np.arange(n) - 50.0, "log_evidence_error": np.ones(n)}
            result = super().__call__(ids, observations, seeds)
            found = dataclasses.replace(result.diagnostics, **evidence)
            return result._replace(diagnostics=found)

    catalog, config = write_inputs(tmp_path)
    fit_catalog(config, catalog, tmp_path / "run.h5", seed=4, engine=Nested(), progress=False)
    table = load_results(tmp_path / "run.h5").table
    assert table.colnames[-5:] == [
        "log_evidence", "log_evidence_error", "method", "flag", "flag_text"
    ]  # fmt: skip
    assert table["log_evidence"][0] == -50
    assert (table["log_evidence_error"] == 1).all()


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "csv"])
def test_written_table_reads_back(folder, results, suffix):
    table = Table.read(folder / f"run.{suffix}")
    assert table.colnames == results.table.colnames
    mass = np.ma.filled(np.ma.asarray(table["log_mass_surviving_p50"], float), np.nan)
    np.testing.assert_allclose(mass, results.summary("log_mass_surviving")[:, 1], rtol=1e-6)
    assert np.array(table["ID"]).astype(int).tolist() == list(range(101, 111))
    assert np.array(table["rhat_max"], float).shape == (10,)


def test_percentiles_are_those_of_all_draws(results):
    ids = [str(i) for i in results.ids]
    engine = FakeEngine()

    class Rows:
        n_bands = np.full(1, 5)
        flux = np.ones((1, 5))

    from jaxsed.catalog.run import seeds_of

    full = engine(ids[:1], Rows, seeds_of(4, ids[:1], [0]))
    expected = np.percentile(full.theta["log_mass_formed"], chunk.PERCENTILES)
    np.testing.assert_allclose(results.summary("log_mass_formed")[0], expected, rtol=1e-6)
    assert results.summary("beta").shape == (10, 3, 4)


def test_draws_are_thinned_float32_and_bounded(results):
    draws = results.draws(101)
    assert draws["log_mass_formed"].shape == (2, 20)  # 40 of 100, as the configuration says
    assert draws["beta"].shape == (2, 20, 4)
    assert draws["sfh"].shape == (2, 20, 3)
    assert draws["a_v"].dtype == np.float32
    assert results.log_density(101).shape == (2, 20)
    assert list(draws)[:2] == ["beta", "log_mass_formed"]
    np.testing.assert_array_equal(results.draws(row=0)["a_v"], draws["a_v"])


def test_thinning_is_even_and_keeps_chains():
    draws = np.arange(2 * 3 * 10).reshape(2, 3, 10)
    assert chunk.thin(draws, 9)[0, 0].tolist() == [0, 4, 9]
    assert chunk.thin(draws, 1000).shape == draws.shape
    assert chunk.thin(draws, 1).shape == (2, 3, 1)


def test_arviz(results):
    arviz = pytest.importorskip("arviz")
    data = results.to_arviz(101)
    assert data.posterior["log_mass_formed"].dims == ("chain", "draw")
    assert data.posterior["beta"].shape == (2, 20, 4)
    assert data.observed_data["flux"].shape == (5,)
    assert data.sample_stats["lp"].shape == (2, 20)
    assert len(arviz.summary(data, var_names=["a_v"])) == 1


def test_row_that_was_not_fitted(results):
    assert results.flags[2] == Flag.BAD_REDSHIFT
    assert np.isnan(results.summary("a_v")[2]).all()
    assert (
        results.table["flag_text"][2] == "redshift missing, not positive or beyond 12: not fitted"
    )
    assert np.isnan(results.predicted_flux[2]).all()
    assert results.table["n_bands"][2] == 5
    with pytest.raises(JaxsedError, match="row 2 .*not fitted"):
        results.draws(103)


def test_observed_and_predicted(results):
    assert results.band_names == ("u_flux", "g_flux", "r_flux", "i_flux", "z_flux")
    np.testing.assert_allclose(results.band_wave, [3500, 4500, 5500, 6500, 7500], rtol=0.01)
    np.testing.assert_allclose(results.predicted_flux[0, 1], results.flux[0], rtol=1e-6)
    assert results.per_galaxy(101)["sfh_age"].tolist() == pytest.approx([0.1, 1.0, 5.0])
    assert results.diagnostic("unique_fraction")[0] == 1


def test_provenance(results):
    found = results.provenance
    assert found["jaxsed_version"] == jaxsed.__version__
    assert found["config"] == CONFIG
    assert found["seed"] == 4
    assert found["predictor"] == "fake"
    assert found["emulator_checksum"] == "abc"
    assert found["catalog_path"].endswith("catalog.csv")
    names = {"date", "platform", "jax_version", "configuration", "catalogue"}
    assert names | {"chunk_seconds", "chunk_compiling"} <= set(found)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda r: r.draws(999), "no id '999'"),
        (lambda r: r.summary("log_mass"), "no quantity 'log_mass'.*Did you mean 'log_mass_"),
        (lambda r: r.diagnostic("rhat"), "no diagnostic 'rhat'.*rhat_max"),
        (lambda r: r.write_table("x.docx"), "must end with"),
    ],
)
def test_questions_without_an_answer(results, ask, words):
    with pytest.raises(JaxsedError, match=words):
        ask(results)


def test_free_redshift_is_in_the_table(tmp_path):
    catalog, config = write_inputs(tmp_path)
    config.write_text(CONFIG.replace('redshift = "z"', 'redshift = "free"'))
    fake = FakeEngine()

    def engine(ids, observations, seeds):
        assert np.isnan(observations.redshift).all()
        result = fake(ids, observations, seeds)
        redshift = 0.5 + 0.01 * result.theta["log_mass_formed"]
        return result._replace(theta={**result.theta, "redshift": redshift})

    table = fit_catalog(config, catalog, tmp_path / "r.h5", engine=engine, progress=False).table
    np.testing.assert_array_equal(table["redshift"], table["redshift_p50"])
    assert (table["redshift_p16"] < table["redshift_p84"]).all()


def test_every_flag_has_its_text_and_its_own_bit():
    assert [int(bit) for bit in Flag] == [2**k for k in range(len(Flag))]
    assert set(flags.TEXT) == set(Flag)
    assert flags.text(0) == ""
    assert flags.text(Flag.FEW_BANDS | Flag.DIVERGENCES).count("; ") == 1


def test_public_name(folder):
    assert jaxsed.load_results is load_results
