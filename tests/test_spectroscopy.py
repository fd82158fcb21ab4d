"""The observed spectrum against convolutions and integrals written out in numpy."""

import ast
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from fake_spectrum import C_KM_S, Full, brute_force, fake_rest, prior

import jaxsed
from jaxsed import cosmology as cosmo
from jaxsed import infer, params
from jaxsed.bands.filters import ab_flux, load_filter
from jaxsed.bands.wavelengths import air_to_vacuum
from jaxsed.plots import spectrum_fit
from jaxsed.sps.dust.milky_way import dereddened, extinction
from jaxsed.sps.gas.lines import LINES
from jaxsed.sps.models import provabgs
from jaxsed.sps.models.galaxy import galaxy_model
from jaxsed.sps.spectra.banded import banded_matrix, integrals
from jaxsed.sps.spectra.observed import ObservedSpectrum, arm
from jaxsed.sps.spectra.pixels import blur, spectrum_model
from jaxsed.sps.spectra.rest_frame import rest_spectrum
from jaxsed.sps.spectra.rest_photometry import rest_photometry
from jaxsed.sps.ssp.grid import load_ssp
from jaxsed.workflows.spectra import spectrum_part, spectrum_problem

WAVE = np.arange(4400.0, 6400.0, 0.8)
THETA = Full(10.3, -0.5, 0.8, 0.1, 180.0)


def _arm(wave=WAVE, **options):
    return arm(wave, np.ones(wave.size), np.ones(wave.size), **options)


def _model(rest=None, arms=None, redshift_range=(0.09, 0.11), **options):
    arms = [_arm()] if arms is None else arms
    return spectrum_model(rest or fake_rest(), arms, redshift_range=redshift_range, **options)


OBSERVE = jax.jit(lambda model, theta: model(theta).continuum)
"""Compiled once for models of one shape."""


@jax.jit
def _see(model, theta):
    """Continuum [pixel], profiles of the lines [line, line pixel]."""
    out = model(theta)
    return out.continuum, out.lines.profiles(out.lines.shift, out.lines.dispersion)


def _continuum(model, theta):
    return np.asarray(OBSERVE(model, theta))


@pytest.fixture(scope="module")
def fine():
    """A model with close nodes, in 64-bit."""
    with jax.enable_x64(True):
        return _model(fake_rest(step=0.2))


@pytest.mark.parametrize("sigma", [0.0, 30.0, 180.0, 500.0])
@pytest.mark.parametrize("redshift", [0.09, 0.1, 0.10437])
def test_spectrum_is_the_numpy_convolution(x64, fine, sigma, redshift):
    theta = THETA._replace(redshift=redshift, velocity_dispersion=sigma)
    got = _continuum(fine, theta)
    expected = brute_force(theta, _arm().edges, sigma)
    # What is left is the model itself, which is linear between nodes 0.2 Angstrom apart, and
    # without any dispersion the working grid, which rounds off the bottom of its lines.
    np.testing.assert_allclose(got, expected, rtol=1.5e-4 if sigma else 5e-4)


def test_float32_is_the_same():
    got = _continuum(_model(fake_rest(step=0.2)), THETA)
    np.testing.assert_allclose(got, brute_force(THETA, _arm().edges, 180.0), rtol=1e-4)


def test_flux_is_conserved(x64):
    """Wide and narrow pixels hold the same energy, and all of it."""
    coarse = _arm(np.arange(4402.0, 6400.0, 40.0))
    fine = _arm(np.arange(4382.4, 6381.9, 0.8))
    assert coarse.edges[[0, -1]] == pytest.approx(fine.edges[[0, -1]], abs=0.81)
    sums = []
    for one in (coarse, fine):
        low, high = 4400.0, 6360.0
        flux = _continuum(_model(arms=[one]), THETA)
        cumulative = np.concatenate([[0.0], np.cumsum(flux * np.diff(one.edges))])
        sums.append(np.diff(np.interp([low + 22, high - 18], one.edges, cumulative))[0])
        expected = brute_force(THETA, np.array([low + 22, high - 18]), 180.0)[0] * 1920.0
        np.testing.assert_allclose(sums[-1], expected, rtol=1e-4)
    fine_edges = np.linspace(4400.0, 6400.0, 2501)
    total = _continuum(_model(arms=[_arm(0.5 * (fine_edges[1:] + fine_edges[:-1]))]), THETA)
    few_edges = fine_edges[::50]
    few = _continuum(_model(arms=[_arm(0.5 * (few_edges[1:] + few_edges[:-1]))]), THETA)
    np.testing.assert_allclose(few, total.reshape(50, 50).mean(1), rtol=1e-5)


def test_integrals_are_exact_and_add_up():
    rng = np.random.default_rng(0)
    nodes = np.sort(rng.uniform(0, 10, 30))
    values = rng.normal(size=30)
    edges = np.sort(rng.uniform(nodes[0], nodes[-1], 200))
    matrix = integrals(nodes, edges[:-1], edges[1:])
    fine = np.union1d(np.union1d(nodes, edges), np.linspace(*nodes[[0, -1]], 5000))
    curve = np.interp(fine, nodes, values)
    cumulative = np.concatenate([[0], np.cumsum(0.5 * (curve[1:] + curve[:-1]) * np.diff(fine))])
    expected = np.diff(np.interp(edges, fine, cumulative))
    np.testing.assert_allclose(matrix @ values, expected, atol=1e-12)
    whole = integrals(nodes, np.array([-1.0]), np.array([11.0])) @ values
    np.testing.assert_allclose(whole, cumulative[-1], rtol=1e-12)
    applied = banded_matrix(matrix)(jnp.asarray(values))
    np.testing.assert_allclose(applied, matrix @ values, rtol=1e-4, atol=1e-5)


def test_mass_scaling_is_exact():
    model = _model()
    one, ten = (_continuum(model, THETA._replace(log_mass_formed=m)) for m in (10.0, 11.0))
    np.testing.assert_allclose(ten / one, 10.0, rtol=3e-6)
    half = _continuum(model, THETA._replace(ln_aperture=np.log(0.5), log_mass_formed=10.0))
    np.testing.assert_allclose(half / one, 0.5, rtol=1e-6)


def test_flux_is_smooth_in_redshift(x64):
    """No step where the spectrum moves on by a whole grid step (6e-5 in ln(1+z))."""
    model = _model()
    flux = jax.jit(jax.vmap(lambda z: model(THETA._replace(redshift=z)).continuum[::37]))
    slope = jax.jit(
        jax.vmap(jax.jacfwd(lambda z: model(THETA._replace(redshift=z)).continuum[::37]))
    )
    z = 0.1 + 2e-6 * np.arange(80)
    values, slopes = np.asarray(flux(jnp.asarray(z))), np.asarray(slope(jnp.asarray(z)))
    steps = np.diff(values, axis=0) / 2e-6
    middle = 0.5 * (slopes[1:] + slopes[:-1])
    np.testing.assert_allclose(steps, middle, atol=2e-5 * np.abs(slopes).max())


def test_gradients_agree_with_differences(x64):
    rest = fake_rest(fwhm=2.5)
    sharp = _arm(sigma=np.linspace(1.2, 1.6, WAVE.size))
    model = _model(rest, [sharp], lines=LINES)

    def value(x):
        theta = Full(*x)
        out = model(theta)
        lines = out.lines.profiles(out.lines.shift, out.lines.dispersion)
        return jnp.sum(jnp.sin(out.continuum * 3)) + jnp.sum(lines**2)

    x = jnp.array([10.3, -0.5, 0.8, 0.1003, 150.0, 90.0, -0.2])
    got = jax.jit(jax.grad(value))(x)
    value = jax.jit(value)
    for k, h in enumerate([1e-6, 1e-5, 1e-5, 1e-8, 1e-3, 1e-3, 1e-6]):
        up, down = value(x.at[k].add(h)), value(x.at[k].add(-h))
        assert float(got[k]) == pytest.approx(float((up - down) / (2 * h)), rel=2e-5)


def test_gradient_is_finite_without_dispersion():
    model = _model(fake_rest(fwhm=2.5), lines=LINES)

    def total(sigma):
        theta = THETA._replace(velocity_dispersion=sigma, gas_dispersion=sigma)
        out = model(theta)
        lines = out.lines.profiles(out.lines.shift, out.lines.dispersion)
        return jnp.sum(out.continuum) + jnp.sum(lines**2)

    value, slope = jax.jit(jax.value_and_grad(total))(0.0)
    assert np.isfinite(value) and np.isfinite(slope)


@pytest.mark.parametrize("fwhm", [1e-3, 2.5])
def test_resolutions_add_in_quadrature(x64, fwhm):
    """The model's own width counts: a model of intrinsic width w needs less broadening."""
    lsf = 90.0 / C_KM_S * WAVE
    rest = fake_rest(step=0.2, fwhm=fwhm, width=5.0)
    got = _continuum(_model(rest, [_arm(sigma=lsf)]), THETA)
    # Of the absorption lines' 5 Angstrom, fwhm / 2.355 is the model's resolution.
    own = np.sqrt(25.0 - (fwhm / 2.3548) ** 2)
    for centre in (4305.0, 4861.0, 5270.0):
        at = np.abs(WAVE / 1.1 - centre) < 60
        total = np.hypot(180.0, 90.0)
        if fwhm > 1:
            total = np.sqrt(total**2 - (fwhm / 2.3548 / centre * C_KM_S) ** 2)
        expected = brute_force(THETA, _arm().edges, total)
        np.testing.assert_allclose(got[at], expected[at], rtol=1.5e-3)
    assert own < 5.0


def test_lines_hold_unit_flux_and_the_instrument_widens_them(x64):
    plain = _model(lines=LINES)
    wide = _model(arms=[_arm(sigma=np.full(WAVE.size, 2.0))], lines=LINES)
    assert plain.line_names == wide.line_names
    for model, instrument in ((plain, 0.0), (wide, 2.0)):
        profiles = np.zeros((len(model.line_names), WAVE.size))
        profiles[:, np.asarray(model.lines.pixels)] = _see(model, THETA)[1]
        lone = model.line_names.index("Hβ 4861")
        assert profiles[lone].sum() * 0.8 == pytest.approx(1.0, rel=1e-4)
        centre = (profiles[lone] * WAVE).sum() * 0.8
        assert centre == pytest.approx(4862.692 * 1.1, abs=0.01)
        spread = np.sqrt((profiles[lone] * (WAVE - centre) ** 2).sum() * 0.8)
        expected = np.hypot(100.0 / C_KM_S * centre, instrument)
        assert spread == pytest.approx(np.hypot(expected, 0.8 / np.sqrt(12)), rel=1e-2)
        pair = model.line_names.index("[OIII] 5007")
        assert profiles[pair].sum() * 0.8 == pytest.approx(1 + 1 / 2.98, rel=1e-4)


def test_line_wavelengths_are_those_of_air_in_vacuum():
    """Air wavelengths of Osterbrock & Ferland (2006), moved to vacuum by the package."""
    air = {
        "Hα 6563": 6562.80, "Hβ 4861": 4861.33, "Hγ 4340": 4340.46, "Hδ 4102": 4101.73,
        "[OIII] 5007": 5006.84, "[NII] 6583": 6583.45, "[SII] 6716": 6716.44,
        "[SII] 6731": 6730.82, "[OII] 3726": 3726.03, "[OII] 3729": 3728.82,
        "[OI] 6300": 6300.30, "HeI 5876": 5875.64, "[NeIII] 3869": 3868.75,
    }  # fmt: skip
    ours = {line.name: line.waves[0] for line in LINES}
    for name, wave in air.items():
        assert ours[name] == pytest.approx(float(air_to_vacuum(np.array([wave]))[0]), abs=0.06)


def test_air_wavelengths_are_moved():
    moved = _arm(air=True)
    np.testing.assert_allclose(moved.wave, air_to_vacuum(WAVE))
    assert np.all(moved.wave - WAVE > 1.0)


def test_bands_are_those_of_the_spectrum(x64):
    rest, band = fake_rest(2000.0, 12000.0), load_filter("sdss_r0")
    theta = THETA._replace(redshift=0.1)
    photometry = rest_photometry(rest, [band], redshift_range=(0.0, 0.3))
    got = jax.jit(lambda theta: photometry(theta))(theta)
    edges = np.linspace(5000.0, 7500.0, 5001)
    centre = 0.5 * (edges[1:] + edges[:-1])
    f_lambda = brute_force(theta, edges, 0.0) * 1e-17
    f_nu = f_lambda * centre**2 / 2.99792458e18 / 3631e-23
    np.testing.assert_allclose(got[0], ab_flux(centre, f_nu, band), rtol=1e-3)


def test_blurred_data_are_refused_with_numbers():
    observed = ObservedSpectrum("galaxy", (_arm(sigma=0.7),))
    rest = fake_rest(fwhm=15.0)
    with pytest.raises(ValueError, match=r"sharper than the model .* times broader") as caught:
        spectrum_problem(rest, observed, prior())
    assert "1.65 Angstrom FWHM" in str(caught.value)
    ratio = blur(rest, observed.arms[0], (0.1, 0.1), 0.0)
    np.testing.assert_allclose(ratio, 15.0 * 1.1 / (0.7 * 2.3548), rtol=1e-4)
    assert spectrum_problem(rest, observed, prior(), max_blur=11.0).dimension == 5
    with pytest.raises(ValueError, match="no pixel is left"):
        spectrum_problem(rest, observed, prior(), mask_blurred=True)
    # Where the widths are not known they are not sharp enough.
    unknown = fake_rest(fwhm=np.nan)
    with pytest.raises(ValueError, match="sharper than the model"):
        spectrum_problem(unknown, observed, prior())
    with pytest.raises(ValueError, match="no pixel is left"):
        spectrum_problem(unknown, observed, prior(), mask_blurred=True)
    # A galaxy whose stars move fast enough is smooth enough.
    fast = spectrum_problem(rest, observed, prior(), velocity_dispersion=600.0)
    assert "velocity_dispersion" in fast.prior._fields


def test_builder_masks_and_extends():
    bad = _arm()
    ivar = bad.ivar.copy()
    ivar[:700] = 0
    observed = ObservedSpectrum("galaxy", (dataclasses.replace(bad, ivar=ivar),))
    observed = observed.masked([(5575.0, 5582.0)])
    problem = spectrum_problem(
        fake_rest(), observed, prior(dist.Uniform(0.099, 0.101)), calibration_order=3
    )
    assert problem.prior._fields[-3:] == ("velocity_dispersion", "gas_dispersion", "ln_aperture")
    model, data = spectrum_part(problem)
    wave, used = np.asarray(data.wave), np.asarray(data.inverse_sigma) > 0
    assert wave[used].min() == pytest.approx(WAVE[700], abs=1e-3)
    assert not used[(wave > 5575) & (wave < 5582)].any()
    assert data.polynomials.shape == (3, wave.size)
    assert "[OII] 3729" not in model.line_names and "Hβ 4861" in model.line_names
    again = spectrum_problem(fake_rest(), observed, prior(0.1))
    assert type(again.prior) is type(problem.prior)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": prior(1.5)}, "the model reaches from 3000"),
        ({"ln_aperture": dist.Normal(0.0, 1.0)}, "give photometry"),
        ({"prior": prior(dist.Normal(0.1, 0.01))}, "give redshift_range"),
        ({"photometry": {"wise_w4": (1e-9, 1e-10)}}, "does not reach the bands wise_w4"),
    ],
)
def test_bad_problems(options, message):
    observed = ObservedSpectrum("galaxy", (_arm(),))
    chosen = options.pop("prior", prior())
    with pytest.raises(ValueError, match=message):
        spectrum_problem(fake_rest(), observed, chosen, **options)


def test_milky_way_extinction():
    # Schlafly & Finkbeiner (2011), table 6, R_V = 3.1: DES g, r, z per E(B-V) of SFD.
    at_pivots = extinction(np.array([4810.0, 6420.0, 9260.0]), 1.0)
    np.testing.assert_allclose(at_pivots, [3.237, 2.176, 1.217], rtol=0.06)
    observed = ObservedSpectrum("galaxy", (_arm(),), None, {"sdss_r0": (1e-9, 1e-10)}, 0.1)
    clean = dereddened(observed)
    assert 1.2e-9 < clean.photometry["sdss_r0"][0] < 1.3e-9
    gain = clean.arms[0].flux / observed.arms[0].flux
    np.testing.assert_allclose(gain * np.sqrt(clean.arms[0].ivar), np.ones(WAVE.size), rtol=1e-12)
    with pytest.raises(ValueError, match="give ebv="):
        dereddened(dataclasses.replace(observed, ebv=None))
    with pytest.raises(ValueError, match="above 2600"):
        extinction(np.array([2000.0]), 0.1)


def test_extended_theta_keeps_its_type():
    one, two = (params.extended(prior(), extra=x) for x in (1.0, 2.0))
    assert type(one) is type(two) and one.extra == 1.0 and one.redshift == 0.1
    with pytest.raises(ValueError, match="already has slope"):
        params.extended(prior(), slope=1.0)


def test_direct_physics_is_a_rest_frame_model():
    """Its bands are those of the galaxy model of the same physics."""
    ssp = load_ssp()
    rest = rest_spectrum(provabgs.provabgs, ssp, wave_range=(2500.0, 12000.0))
    bands = [load_filter(name) for name in ("sdss_g0", "sdss_r0", "sdss_i0")]
    direct = galaxy_model(provabgs.provabgs, "x", ssp, bands, redshift_range=(0.1, 0.3))
    theta = provabgs.ProvabgsTheta(
        10.5, jnp.array([0.1, 0.2, 0.3, 0.4]), 0.1, 0.5, 5e-3, 5e-3, 0.5, 0.4, -0.3, 0.2
    )
    ours = rest_photometry(rest, bands, redshift_range=(0.1, 0.3))
    both = jax.jit(lambda t: (ours(t), direct(t)))(theta)
    np.testing.assert_allclose(both[0], both[1], rtol=3e-3)
    with pytest.raises(ValueError, match="within the grid"):
        rest_spectrum(provabgs.provabgs, ssp, wave_range=(10.0, 12000.0))


@pytest.mark.parametrize("own", [cosmo.PLANCK13, cosmo.WMAP9, None])
def test_a_models_own_cosmology_sets_the_distance(own):
    """Of bands, of spectra and of both together; another one beside it is refused."""

    class Rest(type(fake_rest())):
        cosmology = own

    rest, observed = Rest(fake_rest().nodes), ObservedSpectrum("mock", (_arm(),))
    bands = [load_filter("sdss_r0")]
    photometry = {"sdss_r0": (1e-9, 1e-11)}
    expected = cosmo.PLANCK15 if own is None else own

    def of(**options):
        problem = spectrum_problem(rest, observed, prior(), photometry=photometry, **options)
        return (
            rest_photometry(rest, bands, redshift_range=(0.1, 0.1), **options).cosmology,
            _model(rest, redshift_range=(0.1, 0.1), **options).cosmology,
            problem.forward.bands.cosmology,
            problem.forward.spectrum.cosmology,
        )

    assert all(cosmo.same(found, expected) for found in of())
    assert all(cosmo.same(found, expected) for found in of(cosmology=expected))
    if own is None:
        assert all(cosmo.same(found, cosmo.WMAP9) for found in of(cosmology=cosmo.WMAP9))
        return
    other = cosmo.PLANCK15
    with pytest.raises(ValueError, match="leave `cosmology` out"):
        rest_photometry(rest, bands, redshift_range=(0.1, 0.1), cosmology=other)
    with pytest.raises(ValueError, match="leave `cosmology` out"):
        _model(rest, redshift_range=(0.1, 0.1), cosmology=other)
    with pytest.raises(ValueError, match="leave `cosmology` out"):
        spectrum_problem(rest, observed, prior(), cosmology=other)


def test_builders_agree_on_one_default_cosmology():
    """Whatever in the package takes a cosmology takes none other than Planck 2015 unasked."""
    published = {"load_published_provabgs", "published_provabgs"}  # of their own training sets
    checked = 0
    for path in sorted(Path(jaxsed.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or node.name in published:
                continue
            known = node.args.posonlyargs + node.args.args
            defaults = [*zip(known[::-1], node.args.defaults[::-1], strict=False)]
            defaults += [*zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
            for argument, default in defaults:
                if argument.arg in ("cosmology", "cosmo") and default is not None:
                    checked += 1
                    words = ast.unparse(default)
                    assert words == "None" or words.endswith("PLANCK15"), (path, node.name)
    assert checked > 15


def _mock(redshift, *, photometry=False, seed=0):
    """A problem whose data are those of `THETA` with noise of 2 %, and one line."""
    rng = np.random.default_rng(seed)
    observed = ObservedSpectrum("mock", (_arm(sigma=1.0),)).masked([(5600.0, 5650.0)])
    options = {"gas_dispersion": 100.0, "lines": [k for k in LINES if k.name == "Hβ 4861"]}
    if photometry:
        options |= {"photometry": {"sdss_r0": (1e-9, 1e-11)}, "ln_aperture": dist.Normal(0.0, 1.0)}
    blank = spectrum_problem(fake_rest(), observed, prior(redshift), **options)
    model, _ = spectrum_part(blank)
    continuum, profiles = _see(model, THETA)
    profile = np.zeros(WAVE.size)
    profile[np.asarray(model.lines.pixels)] = profiles[0]
    flux = np.asarray(continuum) + 40 * profile
    noise = 0.02 * np.median(flux)
    first = observed.arms[0]
    noisy = dataclasses.replace(
        first, flux=flux + noise * rng.normal(size=flux.size), ivar=(first.ivar > 0) / noise**2
    )
    return spectrum_problem(
        fake_rest(), ObservedSpectrum("mock", (noisy,)), prior(redshift), **options
    )


def test_picture_shows_what_was_fitted():
    problem = _mock(dist.Uniform(0.099, 0.101), photometry=True)
    theta = type(problem.prior)(*THETA[:5], 100.0, 0.0)
    x = np.asarray(jax.jit(problem.unconstrain)(theta))
    figure = spectrum_fit(problem, x, title="mock")
    whole, below, *zooms, bands = figure.axes
    assert whole.get_title(loc="left") == "mock" and len(zooms) >= 1
    residual = below.lines[0].get_ydata()
    used = np.asarray(spectrum_part(problem)[1].inverse_sigma) > 0
    assert np.array_equal(np.isfinite(residual), used)
    assert 0.8 < np.nanstd(residual) < 1.2
    shaded = [p for p in below.patches if p.get_width() > 40]
    assert len(shaded) == 1 and shaded[0].get_x() == pytest.approx(5600.0, abs=1.0)
    assert [t.get_text() for t in bands.get_xticklabels()] == ["sdss\nr0"]


@pytest.mark.slow
def test_posterior_of_a_mock_holds_the_truth():
    problem = _mock(dist.Uniform(0.099, 0.101))
    method = infer.HMC(warmup=300, draws=500, warmup_chains=8, starts=4)
    samples = infer.sample(jax.random.key(0), problem, method)
    assert samples.diagnostics.passes()
    assert samples.flux is None
    for name in ("log_mass_formed", "slope", "depth", "redshift", "velocity_dispersion"):
        draws, truth = getattr(samples.theta, name), getattr(THETA, name)
        assert abs(draws.mean() - truth) < 4 * draws.std(), name
    # 2 % per pixel in 2,500 pixels: the redshift to a few km/s.
    assert samples.theta.redshift.std() * C_KM_S < 10.0
