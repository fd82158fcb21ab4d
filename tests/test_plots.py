"""What the pictures show: the numbers in them are the results', the axes have units."""


import matplotlib
import numpy as np
import pytest
from astropy.cosmology import Planck15
from plot_data import AGES, make_emulator, make_results

from jaxsed import halos, plots
from jaxsed.catalog import chunk
from jaxsed.catalog.config.sections import LikelihoodConfig, ModelConfig
from jaxsed.catalog.flags import TEXT, Flag
from jaxsed.catalog.results.reader import QUANTITIES
from jaxsed.core.constants import PERCENTILES
from jaxsed.plots.data import DEFAULT_COSMOLOGY, DEFAULT_FLOOR
from jaxsed.plots.galaxy import MICROJANSKY_PER_MAGGIE, columns, interval
from jaxsed.plots.run import offset_and_scatter
from jaxsed.plots.style import LABELS, label
from jaxsed.workflows.checks import rank_pvalue

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("run"))


def lines(axes, name):
    return [line for line in axes.lines if line.get_label() == name]


def boxes(axes):
    """(left, bottom, width, height) of the bars, by their left edge."""
    found = [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in axes.patches]
    return np.array(sorted(found))


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


# ------------------------------------------------------------------ one galaxy


def test_sed_shows_fluxes_limits_and_gaps(results):
    figure = plots.sed(results, 101)
    top, bottom = figure.axes
    assert top.get_ylabel() == "flux density [µJy]"
    assert bottom.get_xlabel() == "observed wavelength [µm]"
    assert bottom.get_ylabel() == r"residual [$\sigma$]"
    assert "101" in top.get_title("left")
    words = texts(top)
    assert words[:2] == ["observed", "model, 68 %"]
    assert {"upper limit", "not observed"} < set(words)
    assert any("below 0" in word for word in words)

    flux = results.flux[0] * MICROJANSKY_PER_MAGGIE
    wave = results.band_wave / 1e4
    [points] = [c for c in top.containers if c.get_label() == "observed"]
    x, y = points[0].get_data()
    np.testing.assert_allclose(x, wave[[2, 3]])  # u is negative, g a limit, z missing
    np.testing.assert_allclose(y, flux[[2, 3]])
    caps = [line for line in top.lines if line.get_marker() == "_"]
    heights = {round(float(line.get_xdata()[0]), 3): line.get_ydata()[0] for line in caps}
    assert heights[round(wave[1], 3)] == pytest.approx(flux[1])
    error = results.error[0] * MICROJANSKY_PER_MAGGIE
    assert heights[round(wave[0], 3)] == pytest.approx(2 * error[0])
    [gap] = lines(top, "not observed")
    np.testing.assert_allclose(gap.get_xdata(), wave[4:])


def test_sed_boxes_are_the_posterior_prediction(results):
    top = plots.sed(results, 102).axes[0]
    low, _, high = results.predicted_flux[1] * MICROJANSKY_PER_MAGGIE
    drawn = boxes(top)
    np.testing.assert_allclose(drawn[:, 1], low, rtol=1e-5)
    np.testing.assert_allclose(drawn[:, 1] + drawn[:, 3], high, rtol=1e-5)
    assert top.get_ylim()[0] < low.min()
    assert top.get_ylim()[1] > high.max()


def test_sed_residuals_are_in_sigma_with_the_floor(results):
    bottom = plots.sed(results, 101).axes[1]
    flux, error = results.flux[0], results.error[0]
    sigma = np.hypot(error, 0.05 * flux)
    expected = ((flux - results.predicted_flux[0, 1]) / sigma)[[0, 2, 3]]
    points = [line for line in bottom.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points[0].get_ydata(), expected, rtol=1e-5)
    assert "5 %" in bottom.texts[0].get_text()
    assert np.abs(expected).max() < bottom.get_ylim()[1]


def test_sed_in_magnitudes_has_bright_at_the_top(results):
    top = plots.sed(results, 102, unit="ABmag").axes[0]
    assert top.get_ylabel() == "AB magnitude [mag]"
    assert top.yaxis_inverted()
    [points] = [c for c in top.containers if c.get_label() == "observed"]
    np.testing.assert_allclose(points[0].get_ydata(), -2.5 * np.log10(results.flux[1]))
    segment = points[2][0].get_segments()[2]  # the error bar of band r: faint and bright end
    flux, error = results.flux[1, 2], results.error[1, 2]
    expected = -2.5 * np.log10([flux + error, flux - error])
    np.testing.assert_allclose(np.sort(segment[:, 1]), expected)


def test_sfh_is_the_percentiles_of_each_interval(results):
    figure = plots.sfh(results, 101)
    [axes] = figure.axes
    assert "[Gyr]" in axes.get_xlabel()
    assert "yr" in axes.get_ylabel()
    assert r"M_\odot" in axes.get_ylabel()
    rate = results.draws(101)["sfr"].reshape(-1, len(AGES))[:, :-1]  # no stars in the oldest
    low, middle, high = np.percentile(rate, PERCENTILES, axis=0)
    [steps] = [p for p in axes.patches if p.get_label() == "median"]
    np.testing.assert_allclose(steps.get_data().values, middle, rtol=1e-6)
    np.testing.assert_allclose(steps.get_data().edges, [0.0, *AGES[:-1]], rtol=1e-6)
    [band] = axes.collections
    drawn = np.unique(band.get_paths()[0].vertices[:, 1])
    for value in (*low, *high):
        assert np.abs(drawn / value - 1).min() < 1e-5
    assert axes.get_xlim() == pytest.approx((AGES[0] / 2, AGES[-2]))
    assert plots.sfh(results, 101, log_time=False).axes[0].get_xlim()[0] == 0


def test_corner_marks_medians_and_68_percent(results):
    names = ["log_mass_surviving", "a_v", "beta"]
    figure = plots.corner(results, 101, names=names)
    assert len(figure.axes) == 6**2
    grid = np.array(figure.axes).reshape(6, 6)
    draws = results.draws(101)
    percentiles = np.percentile(draws["log_mass_surviving"], PERCENTILES)
    dashed = [line.get_xdata()[0] for line in grid[0, 0].lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(sorted(dashed), percentiles, rtol=1e-5)
    assert grid[0, 0].get_title() == interval(*percentiles)
    assert r"M_\odot" in grid[-1, 0].get_xlabel()
    assert grid[-1, 1].get_xlabel() == "$A_V$ [mag]"
    assert grid[-1, 5].get_xlabel() == r"$\beta_{4}$"
    assert "101" in figure.get_suptitle()


def test_corner_shows_parameters_and_derived_by_default(results):
    figure = plots.corner(results, 102, truth={"a_v": 0.5})
    flat = columns(results.draws(102))
    assert "sfr_1" not in flat
    left_out = {"log_sfr_1gyr", "t50"}  # t50 does not vary in this run
    assert len(figure.axes) == (len(flat) - len(left_out)) ** 2


def test_intervals_have_two_digits():
    assert interval(9.9, 10.0, 10.123) == "$10.00^{+0.12}_{-0.10}$"
    assert interval(0.0001, 0.00015, 0.0003) == "$0.000150^{+0.000150}_{-0.000050}$"
    assert interval(1.0, 1.0, 1.0) == "$1.00^{+0.00}_{-0.00}$"


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda r: plots.corner(r, 101, names=["a_vv"]), "no quantity 'a_vv'.*a_v"),
        (lambda r: plots.corner(r, 101, names=["t50"]), "no quantity varies"),
        (lambda r: plots.sed(r, 101, unit="Jy"), "expected uJy or ABmag"),
        (lambda r: plots.sfh(r, 103), "not fitted"),
        (lambda r: plots.corner(r, 999), "no id '999'"),
        (lambda r: plots.save_all(r, "x", ids=[103]), "not fitted.*103"),
        (lambda r: plots.save_all(r, "x", kinds=["sef"]), "no picture 'sef'"),
    ],
)
def test_questions_without_an_answer(results, ask, words):
    with pytest.raises(ValueError, match=words):
        ask(results)


# ------------------------------------------------------------------ a run


def test_catalog_overview(results):
    figure = plots.catalog(results)
    assert len(figure.axes) == 6
    rhat, ess, chi2, bars, mass, sfr = figure.axes
    assert [line.get_xdata()[0] for line in rhat.lines] == [1.01]
    assert [line.get_xdata()[0] for line in ess.lines] == [pytest.approx(np.log10(400))]
    assert "[draws]" in ess.get_xlabel()
    assert "bands" in chi2.get_xlabel()
    names = [text.get_text().replace("\n", " ") for text in bars.get_yticklabels()]
    widths = dict(zip(names, [p.get_width() for p in bars.patches], strict=True))
    flags = results.flags
    assert widths["no flag"] == np.count_nonzero(flags == 0)
    assert widths[TEXT[Flag.BAD_REDSHIFT]] == 1
    assert widths[TEXT[Flag.NOT_CONVERGED]] == np.count_nonzero(flags & Flag.NOT_CONVERGED)
    assert r"M_\odot" in mass.get_ylabel()
    assert r"\mathrm{yr}" in sfr.get_ylabel()
    [clear] = lines(mass, "no flag")
    [flagged] = lines(mass, "flagged")
    median = results.summary("log_mass_surviving")[:, 1]
    np.testing.assert_array_equal(clear.get_ydata(), median[flags == 0])
    np.testing.assert_array_equal(clear.get_xdata(), results.redshift[flags == 0])
    assert len(flagged.get_ydata()) == np.count_nonzero(flags & Flag.NOT_CONVERGED)


def test_histograms_hold_every_galaxy(results):
    rhat = plots.catalog(results).axes[0]
    [outline, *_] = [p for p in rhat.patches if not p.get_fill()]
    values = results.diagnostic("rhat_max")
    assert outline.get_path().vertices[:, 0].max() == pytest.approx(np.nanmax(values))


def test_compare_tells_offset_and_scatter():
    rng = np.random.default_rng(0)
    x = rng.normal(10, 0.5, 400)
    y = x + 0.1 + 0.05 * rng.normal(size=400)
    y[:4] += 3.0  # outliers do not rule
    y[4] = np.nan
    figure = plots.compare(x, y, ("a [dex]", "b [dex]"), x_error=0.1 * np.ones((2, 400)))
    top, bottom = figure.axes
    assert (bottom.get_xlabel(), top.get_ylabel()) == ("a [dex]", "b [dex]")
    offset, scatter = offset_and_scatter(x, y)
    assert offset == pytest.approx(0.1, abs=0.01)
    assert scatter == pytest.approx(0.05, abs=0.01)
    assert f"{offset:+.3f}" in top.get_title("left")
    assert f"{scatter:.3f}" in top.get_title("left")
    assert "399 galaxies" in top.get_title("left")
    shown = bottom.containers[0][0].get_data()
    np.testing.assert_allclose(shown[1], (y - x)[np.isfinite(y)])
    [line] = lines(top, "one to one")
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())


@pytest.mark.parametrize(("x", "y"), [([1.0], [1.0, 2.0]), ([np.nan], [1.0]), ([[1.0]], [[1.0]])])
def test_compare_refuses(x, y):
    with pytest.raises(ValueError, match="expected"):
        plots.compare(x, y, ("x", "y"))


def test_save_all_writes_a_png_each(results, tmp_path):
    paths = plots.save_all(
        results, tmp_path / "new" / "folder", ids=[101], kinds=("sed", "sfh"), progress=False
    )
    assert [p.name for p in paths] == ["catalog.png", "101_sed.png", "101_sfh.png"]
    for path in paths:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_save_all_stops_at_the_limit(results, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "ids", np.array(["a/b", "a b", *results.ids[2:]], object))
    paths = plots.save_all(results, tmp_path, limit=2, kinds=("sfh",), progress=False)
    assert [p.name for p in paths] == ["catalog.png", "a_b_sfh.png", "a_b_row1_sfh.png"]
    assert all(p.parent == tmp_path for p in paths)


# ------------------------------------------------------------------ emulators


def test_emulator_errors():
    emulator = make_emulator()
    figure = plots.emulator_errors(emulator)
    spread, by_wave, heat, colours = figure.axes
    assert "[mmag]" in spread.get_ylabel()
    assert "[mmag]" in by_wave.get_ylabel()
    assert "[µm]" in by_wave.get_xlabel()
    names = [text.get_text() for text in spread.get_xticklabels()]
    assert names == ["band_4", "band_3", "band_2", "band_1", "band_0"]  # by wavelength
    error = emulator.error_ab
    sigma = 1e3 * np.asarray(error.sigma)[::-1]
    np.testing.assert_allclose(by_wave.lines[0].get_ydata(), sigma, rtol=1e-6)
    assert (np.diff(by_wave.lines[0].get_xdata()) > 0).all()
    low = [p.get_y() for p in spread.containers[0]]
    np.testing.assert_allclose(low, 1e3 * np.asarray(error.percentiles)[::-1, 0], rtol=1e-5)
    top = [p.get_y() + p.get_height() for p in spread.containers[3]]
    np.testing.assert_allclose(top, 1e3 * np.asarray(error.percentiles)[::-1, 4], rtol=1e-5)
    picture = np.asarray(heat.images[0].get_array())
    np.testing.assert_allclose(np.diag(picture), 1, rtol=1e-5)
    covariance = np.asarray(error.covariance)
    expected = covariance[4, 3] / np.sqrt(covariance[4, 4] * covariance[3, 3])
    assert picture[0, 1] == pytest.approx(expected, rel=1e-4)
    assert heat.images[0].get_clim() == (-1, 1)


def test_emulator_that_was_not_measured():
    with pytest.raises(ValueError, match="not measured"):
        plots.emulator_errors(make_emulator(measured=False))


# ------------------------------------------------------------------ manners


def test_constants_are_those_of_the_catalogue():
    assert chunk.PERCENTILES == PERCENTILES
    assert LikelihoodConfig().error_floor == DEFAULT_FLOOR
    assert ModelConfig().cosmology == DEFAULT_COSMOLOGY


def test_sfh_ends_where_the_universe_begins(tmp_path):
    results = make_results(tmp_path, 1, draws=20)
    results.redshift[:] = 1.0  # 5.9 Gyr, in the last interval with stars
    [steps] = [p for p in plots.sfh(results, 101).axes[0].patches if p.get_label() == "median"]
    assert steps.get_data().edges[-1] == pytest.approx(Planck15.age(1.0).value, rel=1e-4)


def test_every_quantity_of_the_table_has_a_label():
    assert set(QUANTITIES) <= set(LABELS)
    assert label("beta_2") == r"$\beta_{2}$"
    assert label("log_sfr_ratios_1").endswith(" 1")
    assert label("something_else") == "something_else"


def test_no_global_state_is_touched(results):
    import matplotlib.pyplot as plt

    settings = dict(matplotlib.rcParams)
    for draw in (plots.sed, plots.sfh):
        draw(results, 101)
    plots.corner(results, 101, names=["a_v"])
    plots.catalog(results)
    assert dict(matplotlib.rcParams) == settings
    assert plt.get_fignums() == []


def test_rank_histograms_say_which_parameter_is_off():
    rng = np.random.default_rng(0)
    ranks = {"a_v": rng.integers(0, 100, 500), "log_z_mw": rng.integers(0, 50, 500)}
    p_values = {name: rank_pvalue(values, 99) for name, values in ranks.items()}
    figure = plots.rank_histograms(ranks, 99, p_values=p_values)
    fine, off = (float(a.get_title(loc="right").removeprefix("p = ")) for a in figure.axes)
    assert fine > 0.01
    assert off < 0.01
    with pytest.raises(ValueError, match="no ranks"):
        plots.rank_histograms({}, 99)


def test_stellar_halo_relation():
    model = halos.galaxy_halo(np.arange(9.0, 12.01, 0.25))
    truth = halos.universemachine(0.1)
    rng = np.random.default_rng(0)
    draws = type(truth)(*(np.full((1, 4, 50), value) for value in truth))
    draws = draws._replace(log10_efficiency=rng.normal(truth.log10_efficiency, 0.05, (1, 4, 50)))
    phi = np.asarray(model(truth))
    lower = truth._replace(log10_efficiency=truth.log10_efficiency - 0.3)
    figure = plots.stellar_halo_relation(
        model, draws, phi, 0.1 * phi, others={"the truth": truth, "lower": lower}
    )
    left, right, below = figure.axes
    assert texts(right) == ["posterior, 68 and 95 %", "the truth", "lower", "observed"]
    assert left.get_ylabel().startswith(r"$\log_{10}")
    assert right.get_yscale() == "log"
    [median], [line] = (lines(left, name) for name in ("posterior, 68 and 95 %", "the truth"))
    np.testing.assert_allclose(median.get_ydata(), line.get_ydata(), atol=0.02)
    [low] = lines(left, "lower")
    np.testing.assert_allclose(line.get_ydata() - low.get_ydata(), 0.3, atol=1e-4)
    [ratio] = lines(below, "the truth")
    np.testing.assert_allclose(ratio.get_ydata(), 1.0, atol=0.05)
    [points] = [c for c in right.containers if c.get_label() == "observed"]
    np.testing.assert_allclose(points[0].get_ydata(), phi, rtol=1e-6)
    with pytest.raises(ValueError, match="12 bins"):
        plots.stellar_halo_relation(model, draws, phi[1:], phi[1:])
