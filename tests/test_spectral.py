"""Spectrum emulators: blended windows, training, the whole galaxy, files, and measured errors."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsed import params
from jaxsed.bands.filters import ab_flux, load_filter
from jaxsed.cosmology import age
from jaxsed.emulators import (
    Resolution,
    SpectrumEmulator,
    SpectrumErrors,
    SpectrumSettings,
    SpectrumTarget,
    load_spectrum_emulator,
    spectral_errors,
    train_spectrum,
)
from jaxsed.emulators.registry import spectrum_files
from jaxsed.emulators.spectral.provabgs import Burst, ProvabgsSpectrum, Smooth
from jaxsed.emulators.training.spectral import KWON, blend_weights
from jaxsed.emulators.validation.spectral import QUANTILES, joint_jumps
from jaxsed.learn import FitSettings
from jaxsed.plots.spectrum_error import spectrum_error_percentiles, spectrum_mean_error
from jaxsed.rest_frame.spectrum import nodes_resolution, spectral_grid
from jaxsed.sps.models.galaxy import galaxy_model
from jaxsed.sps.models.registry import family
from jaxsed.sps.ssp.grid import load_ssp
from jaxsed.workflows import train_spectra

WAVE = np.exp(np.linspace(np.log(2000.0), np.log(60_000.0), 600))
JOINTS = (3600.0, 5500.0, 7410.0)


def smooth_spectra(x):
    """ln flux [wave] that depends smoothly on three parameters, in closed form."""
    u = np.log(WAVE / 5500.0)
    return -10.0 + x[0] * u - x[1] ** 2 * jnp.exp(-(u**2)) + 0.3 * jnp.sin(2 * u * x[2])


def simulate(key, n):
    x = jax.random.uniform(key, (n, 3), minval=-1.0, maxval=1.0)
    return x, jax.vmap(smooth_spectra)(x)


SETTINGS = SpectrumSettings(
    n_train=20_000, n_pca=10_000, components=(6, 4, 4, 6), width=32, layers=4,
    fit=FitSettings(
        optimizer="soap", schedule="cosine", learning_rates=(1e-2, 1e-5), batch_size=500, epochs=12,
        patience=12,
    ),
)  # fmt: skip
TARGET = SpectrumTarget(("a", "b", "c"), WAVE, nodes_resolution(WAVE, "two nodes"))


@cache
def train(activation):
    settings = dataclasses.replace(SETTINGS, activation=activation)
    return train_spectrum(jax.random.key(0), simulate, TARGET, settings=settings, progress=False)


@pytest.fixture(scope="module")
def emulator():
    return train("gelu_tanh").emulator


# --- windows ------------------------------------------------------------------------------------


def test_blended_windows_are_a_partition_of_unity_with_continuous_slope():
    fine = np.linspace(3000.0, 9000.0, 60_001)
    weights = blend_weights(fine, JOINTS, 0.02)
    assert weights.shape == (4, fine.size) and weights.min() >= 0
    np.testing.assert_allclose(weights.sum(0), 1.0, atol=1e-12)
    assert np.all(np.sum(weights > 0, axis=0) <= 2)
    slope = np.gradient(weights, fine, axis=1)
    # a straight ramp would change its slope by half of the largest from one step to the next
    assert np.abs(np.diff(slope, axis=1)).max() < 0.01 * np.abs(slope).max()
    at_joint = weights[:, np.searchsorted(fine, 5500.0)]
    np.testing.assert_allclose(at_joint, [0, 0.5, 0.5, 0], atol=1e-3)


@pytest.mark.parametrize(
    "activation", ["gelu_tanh", pytest.param("speculator", marks=pytest.mark.slow)]
)
def test_training_reproduces_spectra_it_has_not_seen(activation):
    trained = train(activation)
    x, truth = simulate(jax.random.key(99), 2000)
    got = np.asarray(jax.jit(jax.vmap(trained.emulator))(x))
    error = np.sqrt(np.mean((got - truth) ** 2))
    assert error < 0.03 * np.std(truth, axis=0).mean()
    # the validation loss is that error, but for the weight of the windows
    assert 0.4 < trained.history.best_loss / error < 2.5
    assert trained.notes["pca_residual_rms_ln_flux"] == pytest.approx([0] * 4, abs=2e-3)


def test_no_jump_where_windows_meet(emulator):
    x, truth = simulate(jax.random.key(7), 500)
    residual = np.asarray(jax.jit(jax.vmap(emulator))(x)) - np.asarray(truth)
    for row in joint_jumps(residual, WAVE, JOINTS):
        size = np.sqrt(np.mean(residual[:, np.searchsorted(WAVE, row["joint"])] ** 2))
        # windows with errors of their own that met at a point would jump by more than their error
        assert row["jump"] < 0.4 * size


def test_a_jump_would_be_found():
    rng = np.random.default_rng(0)
    residual = 1e-3 * rng.normal(size=(500, WAVE.size))
    residual[:, WAVE > 5500] += 1e-2 * rng.normal(size=(500, 1))
    rows = joint_jumps(residual, WAVE, JOINTS)
    assert [row["jump"] > 3 * row["usual"] for row in rows] == [False, True, False]
    assert rows[1]["jump"] == pytest.approx(np.hypot(1e-2, 1.4e-3), rel=0.1)


def test_joints_near_the_ends_are_compared_with_the_neighbours_there_are():
    rng = np.random.default_rng(0)
    residual = np.geomspace(1.0, 1e-3, 40) * rng.normal(size=(500, 40))
    change = np.sqrt(np.mean(np.diff(residual, axis=1) ** 2, axis=0))
    first, last = joint_jumps(residual, np.arange(40.0), [2.5, 37.5])
    assert first["usual"] == pytest.approx(np.median(change[[0, 1, *range(3, 11)]]))
    assert last["usual"] == pytest.approx(np.median(change[[*range(29, 37), 38]]))


def test_published_settings():
    rates = [stage.rate(0.5) for stage in KWON.stages()]
    assert rates == [1e-3, 5e-4, 1e-4, 5e-5, 1e-5, 5e-6, 1e-6]
    assert (KWON.optimizer, KWON.patience) == ("adam", 20)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"width": 0}, "width"),
        ({"components": (5, 5)}, "4 windows"),
        ({"joints": (5500.0, 3600.0, 7410.0)}, "increasing joints"),
        ({"components": (500, 4, 4, 6)}, "500 wavelengths"),
    ],
)
def test_bad_settings(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        train_spectrum(
            jax.random.key(0), simulate, TARGET,
            settings=dataclasses.replace(SETTINGS, **options), progress=False,
        )  # fmt: skip


def test_bad_simulators():
    def wrong_shape(key, n):
        return simulate(key, n)[0][:, :2], simulate(key, n)[1]

    def often_dark(key, n):
        x, y = simulate(key, n)
        return x, jnp.where(x[:, :1] > 0, y, -jnp.inf)

    for simulator, complaint in ((wrong_shape, "shapes"), (often_dark, "not finite")):
        with pytest.raises(ValueError, match=complaint):
            train_spectrum(jax.random.key(0), simulator, TARGET, settings=SETTINGS, progress=False)


# --- the contract of a rest-frame spectrum model --------------------------------------------------


@pytest.fixture(scope="module")
def physics():
    return train_spectra.rest_frame_provabgs(load_ssp())


@pytest.fixture(scope="module")
def shipped():
    return load_spectrum_emulator("provabgs")


@pytest.fixture(scope="module")
def unseen(physics):
    return train_spectra.unseen_galaxies(jax.random.key(11), physics, 2000)


@pytest.fixture(scope="module")
def thetas(unseen):
    """The first 300 of them."""
    theta, ln_flux = unseen
    return jax.tree.map(lambda leaf: leaf[:300], theta), ln_flux[:300]


@pytest.fixture(scope="module")
def nearby(physics):
    theta, _ = train_spectra.unseen_galaxies(
        jax.random.key(5), physics, 2000, redshift_range=(0.1, 0.1)
    )
    return theta


@pytest.mark.parametrize("field", ["f_burst", "t_burst", "dust2", "beta"])
def test_unseen_galaxies_are_draws_of_the_prior(nearby, field):
    """Whatever coordinates its parameters are sampled in: a burst is young as rarely as it says."""
    values = np.asarray(getattr(nearby, field), float)
    if field == "beta":  # a flat Dirichlet over four: each share follows Beta(1, 3)
        assert stats.kstest(values[:, 0], stats.beta(1, 3).cdf).pvalue > 0.01
        return
    prior = family("provabgs").prior(0.1)
    own = getattr(prior, field)
    uniform = getattr(own, "prior", None) or getattr(own, "base", own)
    low, high = float(uniform.low), float(uniform.high)
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01


EACH = jax.jit(lambda model, theta: jax.vmap(model)(theta))
"""[galaxy, wave], compiled once for models of one kind."""


def one(theta, k=0):
    return jax.tree.map(lambda leaf: leaf[k], theta)


def test_contract(shipped, physics, thetas):
    theta, _ = thetas
    assert "redshift" in shipped.parameter_names
    for model in (shipped, physics):
        assert isinstance(model.wave, np.ndarray) and np.all(np.diff(model.wave) > 0)
        assert model.resolution.fwhm.shape == model.wave.shape and model.resolution.text
        single = model(one(theta))
        assert single.shape == model.wave.shape and single.dtype == jnp.float32
        many, compiled = EACH(model, theta), jax.jit(model)
        np.testing.assert_allclose(many[0], single, atol=1e-4)
        for k in (0, 1, 2):
            np.testing.assert_allclose(many[k], compiled(one(theta, k)), atol=1e-4)


def test_second_call_does_not_compile_and_wave_is_known_inside_jit(shipped, thetas):
    traces = []

    @jax.jit
    def total(model, theta):
        traces.append(None)
        step = np.gradient(model.wave)  # numpy on static wavelengths
        return jnp.sum(jnp.exp(model(theta)) * step)

    total(shipped, one(thetas[0]))
    leaves, structure = jax.tree.flatten(shipped)
    total(jax.tree.unflatten(structure, leaves), one(thetas[0], 1))
    assert len(traces) == 1


def test_gradients_are_finite_at_the_edges_of_the_prior(shipped):
    prior = family("provabgs").prior(0.1)
    n = params.dimension(prior)
    corners = jnp.concatenate(
        [6 * jnp.eye(n), -6 * jnp.eye(n), 6 * jnp.ones((1, n)), -6 * jnp.ones((1, n))]
    )

    def total(u, model):
        return jnp.sum(model(params.constrain(prior, u)[0]))

    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(total), (0, None)))(corners, shipped)
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))


def test_gradients_against_differences_in_64_bit(x64):
    model = load_spectrum_emulator("provabgs")
    prior = family("provabgs").prior(0.1)
    u = jax.random.normal(jax.random.key(1), (params.dimension(prior),))

    @jax.jit
    def both(model, u):
        def flux(u):
            return model(params.constrain(prior, u)[0])[::50]

        steps = 1e-6 * jnp.eye(u.size)
        return jax.jacrev(flux)(u), jax.vmap(flux)(u + jnp.concatenate([steps, -steps]))

    slope, moved = both(model, u)
    up, down = np.split(np.asarray(moved), 2)
    assert up.dtype == np.float64
    np.testing.assert_allclose(slope, (up - down).T / 2e-6, rtol=1e-4, atol=1e-6)


def test_array_and_named_tuple_are_the_same_theta(emulator):
    from collections import namedtuple

    named = namedtuple("T", "c b a")(0.3, -0.2, 0.1)
    np.testing.assert_array_equal(emulator(named), emulator(jnp.array([0.1, -0.2, 0.3])))
    with pytest.raises(ValueError, match=r"shape \(3,\).*a, b, c.*vmap"):
        emulator(jnp.ones((5, 3)))


def test_inside_the_training_range(emulator):
    assert bool(emulator.inside(jnp.zeros(3)))
    assert bool(emulator.inside(emulator.box_high))
    assert not bool(emulator.inside(jnp.array([0.0, 0.0, 1.1])))
    assert not bool(emulator.inside(jnp.array([0.0, jnp.nan, 0.0])))


def test_part_of_the_wavelengths(emulator):
    x = jnp.array([0.1, 0.2, 0.3])
    part = emulator.between(3000.0, 6000.0)
    keep = (WAVE >= 3000) & (WAVE <= 6000)
    np.testing.assert_allclose(part(x), emulator(x)[keep], rtol=1e-6)
    np.testing.assert_array_equal(part.resolution.fwhm, emulator.resolution.fwhm[keep])


# --- the whole galaxy ---------------------------------------------------------------------------


def test_components_add_up_to_the_direct_physics(physics, shipped, thetas):
    """With the exact components in place of the networks nothing is missing."""
    theta, truth = thetas

    @dataclasses.dataclass(frozen=True)
    class Exact:
        run: object

        def __call__(self, inputs):
            return self.run(inputs)

    exact = dataclasses.replace(
        shipped,
        smooth=Exact(partial(train_spectra.smooth_component, physics)),
        burst=Exact(partial(train_spectra.burst_component, physics)),
    )
    plain = partial(ProvabgsSpectrum.__call__.__wrapped__, exact)  # the components are no pytrees
    got = np.asarray(jax.jit(jax.vmap(plain))(theta))
    np.testing.assert_allclose(got, truth, atol=2e-4)


def test_direct_physics_is_that_of_the_photometry(physics, thetas):
    theta, _ = thetas
    band = load_filter("sdss_r0")
    bands = galaxy_model(
        family("provabgs").physics, "provabgs", load_ssp(), [band], redshift_range=(0.0, 0.7)
    )
    from jaxsed.core.constants import C_LIGHT, MAGGIES_10PC_PER_LSUN_HZ

    light = np.asarray(EACH(physics, theta), float)
    shapes = jax.jit(jax.vmap(bands.shape))(theta)
    for k in range(5):
        t = one(theta, k)
        l_nu = np.exp(light[k]) * physics.wave**2 / C_LIGHT
        flux = ab_flux(
            physics.wave * (1 + float(t.redshift)), l_nu * MAGGIES_10PC_PER_LSUN_HZ, band
        )
        expected = float(shapes[k, 0]) / 1e10 / (1 + float(t.redshift))
        np.testing.assert_allclose(flux, expected, rtol=5e-3)


def test_direct_physics_is_starlight_behind_two_screens(physics, thetas):
    """ln of the sum of both populations, in double precision; and finite behind any dust."""
    theta, truth = thetas
    ratio = physics.wave / 5500.0
    for k in range(5):
        t = one(theta, k)
        formation = physics.physics.formation(t, age(t.redshift))
        young, old = physics.stars.light(formation, physics.physics.log_z(t))
        light = np.exp(-float(t.dust1) / ratio) * np.asarray(young, float) + np.asarray(old, float)
        depth = np.asarray(physics.dust.diffuse.depth(t.dust2, t.dust_index), float)
        unit = 2.99792458e18 / physics.wave**2 / physics.stars.unit
        np.testing.assert_allclose(truth[k], np.log(light * unit) - depth, atol=2e-5)
    dark = one(theta)._replace(dust1=jnp.asarray(3.0), dust2=jnp.asarray(300.0))
    assert np.all(np.isfinite(physics(dark)))


def test_grid_of_the_physics_is_known_by_its_content(physics, shipped):
    """A model built again shares compiled code; both kinds state wavelengths the same way."""
    again = train_spectra.rest_frame_provabgs(load_ssp())
    assert again.grid is not physics.grid and again.grid == physics.grid == shipped.grid
    assert jax.tree.structure(again) == jax.tree.structure(physics)
    blurred = spectral_grid(physics.wave, Resolution(2 * physics.resolution.fwhm, "blurred"))
    assert blurred != physics.grid and hash(blurred) == hash(physics.grid)


def test_shipped_emulator_is_as_accurate_as_it_says(shipped, unseen):
    theta, truth = unseen
    errors = spectral_errors(shipped, theta, truth)
    stated = np.asarray(shipped.errors.percentiles)
    found = np.asarray(errors.percentiles)
    np.testing.assert_allclose(found[:, 0], stated[:, 0], rtol=0.25)
    red = shipped.wave > 3000
    assert found[red, 2].max() < 0.01  # 99 % of the galaxies
    assert np.interp(0.99, QUANTILES, np.asarray(errors.mean)) < 0.005


def test_range_of_the_shipped_emulator(shipped, thetas):
    t = one(thetas[0])
    assert bool(shipped.inside(t))
    assert not bool(shipped.inside(t._replace(redshift=jnp.asarray(3.0))))
    assert not bool(shipped.inside(t._replace(dust1=jnp.asarray(7.0))))
    smooth, burst = shipped.inputs(t)
    assert isinstance(smooth, Smooth) and isinstance(burst, Burst)
    np.testing.assert_allclose(smooth.age, age(t.redshift), rtol=1e-6)


def test_burst_older_than_the_galaxy_is_cut_as_in_the_physics(shipped, physics, thetas):
    t = one(thetas[0])._replace(redshift=jnp.asarray(0.6), f_burst=jnp.asarray(0.9))
    for t_burst in (7.0, 9.0, 13.2):
        t = t._replace(t_burst=jnp.asarray(t_burst))
        np.testing.assert_allclose(shipped(t), physics(t), atol=0.01)
    # at 13.2 Gyr next to nothing of it is left, and the mass is that of the smooth component
    bare = shipped(t._replace(f_burst=jnp.asarray(0.0)))
    np.testing.assert_allclose(shipped(t), bare, atol=0.07)


# --- files --------------------------------------------------------------------------------------


def test_round_trip(tmp_path, emulator, shipped, thetas):
    path = tmp_path / "e.h5"
    emulator.save(path)
    again = SpectrumEmulator.load(path)
    x = jnp.array([0.1, 0.2, 0.3])
    np.testing.assert_array_equal(again(x), emulator(x))
    assert again.grid == emulator.grid and hash(again.grid) == hash(emulator.grid)
    assert again.parameter_names == emulator.parameter_names and again.unit == emulator.unit
    shipped.save(path)
    whole = load_spectrum_emulator(path)
    np.testing.assert_array_equal(whole(one(thetas[0])), shipped(one(thetas[0])))
    np.testing.assert_array_equal(whole.errors.percentiles, shipped.errors.percentiles)
    assert whole.provenance == shipped.provenance


def test_damaged_and_foreign_files(tmp_path, emulator, shipped):
    path = tmp_path / "e.h5"
    shipped.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"e\.h5"):
        ProvabgsSpectrum.load(path)
    path.write_bytes(data[:1000])
    with pytest.raises(ValueError, match=r"e\.h5"):
        ProvabgsSpectrum.load(path)
    emulator.save(path)
    with pytest.raises(ValueError, match="expected a 'jaxsed PROVABGS spectrum emulator'"):
        ProvabgsSpectrum.load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SpectrumEmulator.load(tmp_path / "nowhere.h5")
    with pytest.raises(ValueError, match="no spectrum emulator 'x'.*provabgs"):
        load_spectrum_emulator("x")


def test_shipped_files_are_small_and_have_cards():
    assert spectrum_files()
    for path in spectrum_files():
        assert path.stat().st_size < 6e6
        card = path.with_suffix(".md").read_text()
        assert "unseen galaxies" in card and "Cite" in card


# --- errors and pictures --------------------------------------------------------------------------


def test_errors_are_those_that_were_put_in(emulator):
    x, _ = simulate(jax.random.key(5), 1000)
    size = np.linspace(0.0, 0.1, 1000)
    truth = np.asarray(jax.vmap(emulator)(x)) - np.log1p(size)[:, None]
    errors = spectral_errors(emulator, x, truth)
    expected = np.percentile(size, [68, 95, 99, 99.9])
    np.testing.assert_allclose(errors.percentiles, np.tile(expected, (WAVE.size, 1)), rtol=1e-3)
    np.testing.assert_allclose(errors.bias, 0.05, rtol=1e-2)
    np.testing.assert_allclose(errors.mean, np.quantile(size, QUANTILES), rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match=r"\[1000, 600\]"):
        spectral_errors(emulator, x, truth[:, 1:])


def test_pictures_show_the_errors(shipped):
    figure = spectrum_error_percentiles(shipped.errors, shipped.wave, JOINTS)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log" and "micron" not in axes.get_xlabel()
    bands = [c for c in axes.collections if c.get_label() == "99 %"]
    vertices = bands[0].get_paths()[0].vertices
    largest = 100 * float(np.max(shipped.errors.percentiles[:, 2]))
    np.testing.assert_allclose(vertices[:, 1].max(), largest, rtol=1e-5)
    (mean,) = spectrum_mean_error(shipped.errors).axes
    np.testing.assert_allclose(mean.lines[0].get_xdata(), 100 * np.asarray(shipped.errors.mean))
    with pytest.raises(ValueError, match="not measured"):
        spectrum_error_percentiles(SpectrumErrors.unknown(WAVE.size), WAVE)


def test_parts_that_do_not_fit(shipped, emulator):
    from jaxsed.emulators.spectral.provabgs import provabgs_spectrum

    with pytest.raises(ValueError, match="beta_stick_1"):
        provabgs_spectrum(emulator, shipped.burst, shipped.screen, burst_width=0.3)
    with pytest.raises(ValueError, match="same wavelengths"):
        provabgs_spectrum(
            shipped.smooth.between(3000, 9000), shipped.burst, shipped.screen, burst_width=0.3
        )
    with pytest.raises(ValueError, match="per wavelength"):
        emulator.with_resolution(Resolution(np.ones(3), "wrong"))
    with pytest.raises(ValueError, match="within the grid"):
        train_spectra.rest_frame_provabgs(load_ssp(), wave_range=(10.0, 6000.0))
