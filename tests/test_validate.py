"""Validation of emulators: statistics of the errors, derivatives, posteriors, files, pictures."""

import json
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.table import Table
from plot_data import make_emulator
from scipy import stats
from scipy.integrate import quad
from test_cli import call

from jaxsed import infer, params, plots
from jaxsed.bands.magnitudes import from_arsinh
from jaxsed.core.errors import JaxsedError
from jaxsed.emulators import load_emulator, measure_error
from jaxsed.emulators.validation.errors import ErrorSummary, Residuals
from jaxsed.emulators.validation.gradients import gradient_errors
from jaxsed.emulators.validation.photometric import BINS, binned_errors, validate
from jaxsed.emulators.validation.tails import SHAPES, tails
from jaxsed.sps.models.provabgs import ProvabgsTheta
from jaxsed.sps.models.registry import family
from jaxsed.workflows import mocks
from jaxsed.workflows import validate as validate_module
from jaxsed.workflows.mocks import agreement, mock_galaxies
from jaxsed.workflows.validate import (
    Request,
    compare_posteriors,
    physics_of,
    survey_sigma,
    validate_emulator,
    validate_file,
)

SDSS = files("jaxsed.weights") / "emulator_provabgs_sdss.h5"


def found_of(ab, bright=None):
    return Residuals(ab, ab, np.ones(ab.shape, bool) if bright is None else bright)


def pairs_with_error(emulator, noise, seed=0):
    """Pairs on which an emulator is wrong by `noise` [pair, band] magnitudes."""
    x = np.random.default_rng(seed).uniform(0, 1, (len(noise), len(emulator.feature_names)))
    truth = np.asarray(jax.vmap(emulator.from_features)(jnp.asarray(x, float)), float) - 20.0
    shifted = emulator.replace(output_mean=emulator.output_mean - 20.0)
    return shifted, x, np.asarray(from_arsinh(truth - noise, emulator.mu_0))


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_densities_of_unit_variance(name):
    def density(z):
        return np.exp(SHAPES[name](np.asarray(z)))

    assert 2 * quad(density, 0, np.inf)[0] == pytest.approx(1.0, abs=1e-6)
    assert 2 * quad(lambda z: z**2 * density(z), 0, np.inf)[0] == pytest.approx(1.0, abs=1e-6)


def test_tails_tell_the_distribution():
    rng = np.random.default_rng(0)
    n = 100_000
    ab = np.stack([rng.normal(0.3, 0.01, n), rng.laplace(0, 0.02, n), rng.logistic(0, 0.005, n)], 1)
    found = tails(found_of(ab), ErrorSummary.of(ab))
    best = [list(SHAPES)[i] for i in np.argmax(found.log_likelihood, 1)]
    assert best == ["normal", "Laplace", "logistic"]
    np.testing.assert_allclose(found.beyond[0, 0], 0.0027, rtol=0.2)
    np.testing.assert_allclose(found.beyond[1, 0], np.exp(-3 * np.sqrt(2)), rtol=0.1)
    assert np.sum(found.histogram * 0.1) == pytest.approx(1.0)


def test_binned_errors_show_where_it_is_bad():
    rng = np.random.default_rng(1)
    n = 60_000
    x = rng.uniform([0, -2], [1, 3], (n, 2))
    sigma = 0.01 + 0.04 * (x[:, :1] > 0.5)  # bad in the upper half of the first feature
    ab = sigma * rng.normal(size=(n, 2))
    bright = np.ones((n, 2), bool)
    bright[x[:, 1] < 0, 1] = False  # the second band has no light at low values of the second
    ab[~bright] = 1e3
    found = binned_errors(x, found_of(ab, bright), (np.array([0.0, -2.0]), np.array([1.0, 3.0])))
    np.testing.assert_allclose(found.edges[1], np.linspace(-2, 3, BINS + 1))
    half = BINS // 2
    np.testing.assert_allclose(found.sigma[0, :half], 0.01, rtol=0.1)
    np.testing.assert_allclose(found.sigma[0, half:], 0.05, rtol=0.1)
    np.testing.assert_allclose(found.percent99[0, half:], 2.576 * 0.05, rtol=0.15)
    assert np.isnan(found.sigma[1, : 2 * BINS // 5, 1]).all()
    mixture = np.sqrt(0.5 * (0.01**2 + 0.05**2))
    np.testing.assert_allclose(found.sigma[1, 2 * BINS // 5 :, 1], mixture, rtol=0.1)
    # a bin with hardly any pairs says nothing
    few = binned_errors(x[:40], found_of(ab[:40]), (np.array([0.0, -2.0]), np.array([1.0, 3.0])))
    assert np.isnan(few.sigma).all()


def test_gradient_errors_of_known_functions():
    def exact(x):
        return jnp.stack([3.0 * x[0], x[0] * x[1]])

    def emulated(x):
        return exact(x) + jnp.stack([0.1 * x[0], -0.2 * x[1]])

    x = np.random.default_rng(0).normal(size=(101, 2))
    found = gradient_errors(emulated, exact, x, ("a", "b"))
    # errors by a are 0.1 and 0, by b 0 and 0.2; the median lies between or at one of them
    np.testing.assert_allclose(found.error[:, -1], [0.1, 0.2], rtol=1e-5)
    assert found.not_finite == 0
    np.testing.assert_allclose(found.size[0, -1], np.percentile(
        np.abs(np.stack([np.full(101, 3.0), x[:, 1]])), 95), rtol=1e-5)  # fmt: skip
    broken = gradient_errors(emulated, lambda x: exact(x) / (x[0] > 0), x, ("a", "b"))
    assert broken.not_finite > 20


def test_validation_finds_the_errors_put_in():
    rng = np.random.default_rng(2)
    noise = rng.standard_t(4, size=(20_000, 5)) * [0.01, 0.02, 0.005, 0.01, 0.03]
    emulator, x, f10 = pairs_with_error(make_emulator(), noise)
    found = validate(emulator, x, f10, np.full(5, 0.02))
    # what it says is what measure_error says
    measured = measure_error(emulator, x, f10)
    np.testing.assert_allclose(found.error.sigma, measured.error_ab.sigma)
    np.testing.assert_allclose(found.error.sigma, noise.std(0), rtol=2e-3)
    np.testing.assert_allclose(found.ratio, noise.std(0) / 0.02, rtol=2e-3)
    np.testing.assert_allclose(found.mean_absolute, np.sort(np.abs(noise).mean(1)), atol=1e-4)
    assert found.columns()["tail"] == ["Student t(4)"] * 5
    numbers = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert numbers["pairs"] == 20_000
    assert set(numbers["binned"]) == {"dust2", "redshift"}
    with pytest.raises(ValueError, match="uncertainty in 5 bands"):
        validate(emulator, x, f10, np.full(4, 0.02))


def test_bands_whose_errors_were_not_measured_say_so():
    rng = np.random.default_rng(2)
    noise = 0.01 * rng.normal(size=(20_000, 5))
    emulator, x, f10 = pairs_with_error(make_emulator(), noise)
    f10 = f10 * np.array([1, 1e-9, 1, 1, 1])  # too faint for an AB magnitude
    found = validate(emulator, x, f10, np.full(5, 0.02))
    assert not np.isfinite(found.error.sigma[1])
    assert [bool(name) for name in found.columns()["tail"]] == [True, False, True, True, True]
    validate_module.error_view(found)
    none = validate(emulator, x, 1e-9 * f10, np.full(5, 0.02))
    assert none.columns()["tail"] == [""] * 5
    assert "not measured" in list(validate_module.error_view(none).columns[1].cells)


def test_pictures_of_a_validation():
    rng = np.random.default_rng(2)
    noise = 0.01 * rng.standard_t(4, size=(5000, 5))
    emulator, x, f10 = pairs_with_error(make_emulator(), noise)
    found = validate(emulator, x, f10, np.full(5, 0.05))
    figures = plots.validation_figures(found)
    assert set(figures) == {"errors", "mean_error", "correlations", "tails", "parameters", "survey"}
    axes = figures["errors"].axes[0]
    assert "[mag]" in axes.get_ylabel()
    # by wavelength, which the emulator's bands are not
    absolute = np.asarray(found.error.absolute)[::-1]
    for k in range(4):
        np.testing.assert_allclose(axes.lines[k].get_ydata(), absolute[:, k])
    assert (np.diff(axes.lines[0].get_xdata()) > 0).all()
    curve = figures["mean_error"].axes[0].lines[0]
    assert np.interp(np.median(found.mean_absolute), curve.get_xdata(), curve.get_ydata()) == (
        pytest.approx(50, abs=0.1)
    )
    picture = np.asarray(figures["correlations"].axes[1].images[0].get_array())
    np.testing.assert_allclose(picture, found.correlation[::-1, ::-1])
    panel = figures["parameters"].axes[0]
    np.testing.assert_allclose(
        panel.lines[1].get_ydata(), np.nanmax(found.binned.sigma[0], 1), rtol=1e-6
    )
    ratio = figures["survey"].axes[0].lines[0]
    np.testing.assert_allclose(ratio.get_ydata(), found.ratio[::-1])


def draws_of(mean, sigma, n=4000, seed=0):
    """A theta with Gaussian draws of `dust2` and a fixed redshift."""
    rng = np.random.default_rng(seed)
    own = ProvabgsTheta(*[np.zeros((len(mean), 2, n // 2))] * len(ProvabgsTheta._fields))
    draws = rng.normal(np.asarray(mean)[:, None, None], sigma, (len(mean), 2, n // 2))
    return own._replace(dust2=draws, beta=np.ones((len(mean), 2, n // 2, 4)))


def test_agreement_is_equation_10():
    a = draws_of([0.0, 1.0, 0.0], 0.3)
    b = draws_of([0.0, 3.0, 0.2], 0.4, seed=1)
    found = agreement(a, b)
    assert found.names == ("dust2",)  # nothing else varies
    np.testing.assert_allclose(found.q[0], np.array([0.0, -2.0, -0.2]) / 0.5, atol=0.1)
    np.testing.assert_allclose(found.shift[0], np.array([0.0, -2.0, -0.2]) / 0.4, atol=0.1)
    np.testing.assert_allclose(found.width_ratio[0], 0.75, rtol=0.1)
    figures = found.figures()["dust2"]
    assert figures["outliers"] == pytest.approx(1 / 3)
    assert figures["q_max"] == pytest.approx(4.0, abs=0.1)
    picture = plots.validation.discrepancies(found, agreement(a, a))
    assert "Q" in picture.axes[0].get_xlabel()
    assert [text.get_text() for text in picture.axes[0].texts] == ["33.3%", "0.0%"]
    assert plots.validation.OUTLIER == mocks.OUTLIER


def test_mocks_are_drawn_from_the_prior_with_their_noise():
    galaxies = family("provabgs")

    def physics(theta):
        return 1e-9 * jnp.exp(-theta.dust2) * jnp.ones(3)

    z = np.linspace(0.1, 2.0, 4000)
    forward = jax.tree_util.Partial(physics)
    made = mock_galaxies(jax.random.key(0), galaxies, forward, z, noise=0.1, depth=24.0)
    np.testing.assert_allclose(made.truth.redshift, z, rtol=1e-6)
    dust = np.asarray(made.truth.dust2)
    assert dust.min() >= 0 and dust.max() <= 3
    np.testing.assert_allclose(dust.mean(), 1.5, atol=0.06)  # uniform
    pull = (made.observed - made.flux) / made.noise
    np.testing.assert_allclose([pull.mean(), pull.std()], [0, 1], atol=0.03)
    expected = np.hypot(0.1 * made.flux, 10 ** (-0.4 * 24.0))
    np.testing.assert_allclose(made.noise, expected)
    near = mock_galaxies(jax.random.key(2), galaxies, forward, np.full(4000, 0.1))
    low, high = (float(getattr(galaxies.prior(0.1).t_burst.prior, k)) for k in ("low", "high"))
    assert stats.kstest(np.asarray(near.truth.t_burst), "uniform", (low, high - low)).pvalue > 0.01
    part = made.take(np.array([5, 7]))
    np.testing.assert_array_equal(part.observed, made.observed[[5, 7]])


def test_derivatives_are_compared_at_draws_of_the_prior(monkeypatch):
    """Not at normal numbers of the coordinates, in which most bursts are young."""
    galaxies, seen = family("provabgs"), {}
    monkeypatch.setattr(
        validate_module, "gradient_errors", lambda a, b, points, names: seen.update(points=points)
    )
    validate_module.compare_gradients(
        jax.random.key(1), None, None, galaxies, (0.1, 0.1), 3000
    )
    points = np.asarray(seen["points"], float)
    prior = galaxies.prior(0.1)
    x = np.insert(points[:, 1:], prior._fields.index("log_mass_formed"), 0.0, axis=1)
    burst_of = jax.jit(jax.vmap(lambda x: params.constrain(prior, x)[0].t_burst))
    t_burst = burst_of(jnp.asarray(x, float))
    low, high = float(prior.t_burst.prior.low), float(prior.t_burst.prior.high)
    assert np.mean(np.asarray(t_burst) < 0.3) < 0.06
    inner = stats.kstest(np.asarray(t_burst), stats.uniform(low, high - low).cdf)
    assert inner.pvalue > 0.01


def test_survey_tables(tmp_path):
    path = tmp_path / "survey.txt"
    path.write_text("band error\nsdss_g0 0.02\nsdss_u0 0.1\n")
    sigma = survey_sigma(("sdss_u0", "sdss_g0"), Request(survey=path))
    np.testing.assert_allclose(sigma, [0.1, 0.02])
    np.testing.assert_allclose(
        survey_sigma(("a",), Request(error_floor=0.05)), 0.05 * 2.5 / np.log(10)
    )
    with pytest.raises(JaxsedError, match="no uncertainty above zero .* band sdss_r0"):
        survey_sigma(("sdss_r0", "sdss_g0"), Request(survey=path))
    with pytest.raises(JaxsedError, match=r"absent\.txt"):
        survey_sigma(("a",), Request(survey=tmp_path / "absent.txt"))


@pytest.mark.slow
def test_command_on_a_shipped_emulator(tmp_path, capsys):
    folder = tmp_path / "validation"
    code, out, _ = call(
        capsys, "validate", SDSS, "--output", folder, "--pairs", 1500, "--gradients", 16
    )
    assert code == 0
    assert "2 tables and 7 pictures" in out
    table = Table.read(folder / "errors.ecsv")
    assert list(table["band"]) == [f"sdss_{b}0" for b in "ugriz"]
    # fresh simulations give the errors that the file claims
    np.testing.assert_allclose(table["sigma"], table["sigma_claimed"], rtol=0.25)
    assert (np.abs(table["mean"]) < 0.2 * table["sigma"]).all()
    numbers = json.loads((folder / "validation.json").read_text())
    # derivatives by dust agree with those of the physics to a few percent
    gradients = numbers["gradients"]
    assert gradients["error"]["dust2"][1] < 0.05 * gradients["size"]["dust2"][1]
    assert "log_mass_formed" not in gradients["error"]
    assert (folder / "gradients.png").stat().st_size > 5000


def test_emulators_that_cannot_be_validated(tmp_path):
    nothing = make_emulator()
    record = nothing.record.__class__()
    with pytest.raises(JaxsedError, match="does not say what physics"):
        validate_emulator(nothing.replace(record=record))
    with pytest.raises(JaxsedError, match="absent"):
        validate_file(tmp_path / "absent.h5", tmp_path)
    path = tmp_path / "other.h5"
    path.write_bytes(b"no file of ours")
    with pytest.raises(JaxsedError, match=r"other\.h5"):
        validate_file(path, tmp_path)


@pytest.mark.slow
def test_posteriors_of_a_good_emulator_are_those_of_the_physics():
    emulator = load_emulator("provabgs_sdss")
    galaxies, model, redshifts = physics_of(emulator, Request())
    found = compare_posteriors(
        jax.random.key(0), emulator, model, galaxies, redshifts, 6, sampler=infer.HMC(retries=2)
    )  # fmt: skip
    assert len(found.redshift) >= 4
    for result in (found.against_physics, found.repeated):
        assert np.abs(result.q).max() < 0.5
        assert np.abs(np.log(result.width_ratio)).max() < 0.25
