"""Photometric emulators: exact mass and distance, files, errors, training from simulations."""

import dataclasses
import json
from typing import Any, NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxsed.bands.filters import Filter, curve_difference
from jaxsed.bands.magnitudes import from_arsinh, to_arsinh
from jaxsed.cosmology import PLANCK15, WMAP9, luminosity_distance
from jaxsed.emulators import (
    EmulatorRecord,
    EmulatorTarget,
    PhotometricEmulator,
    TrainSettings,
    error_report,
    error_table,
    measure_error,
    model_card,
    train_photometric,
)
from jaxsed.emulators.photometric.spread import train_spread
from jaxsed.emulators.training.pairs import simulate_pairs
from jaxsed.emulators.training.photometric import rmse_loss
from jaxsed.emulators.training_range import outside
from jaxsed.learn import FitSettings
from jaxsed.nets import mlp

KEY = jax.random.key(2)
FEATURES = ("beta_stick_1", "log10_age", "dust", "redshift")
BANDS = ("u", "g", "r")
LOW, HIGH = np.array([0.0, -1.0, 0.0, 0.0]), np.array([1.0, 1.0, 3.0, 2.0])


class Theta(NamedTuple):
    """A small stand-in for a physical model's theta."""

    log_mass_formed: Any = 10.5
    beta: Any = jnp.array([0.3, 0.7])
    age: Any = 2.0
    dust: Any = 0.4
    redshift: Any = 0.8


def curve(centre, width=300.0):
    wave = np.linspace(centre - 2 * width, centre + 2 * width, 41)
    return Filter("band", wave, np.exp(-0.5 * ((wave - centre) / width) ** 4))


CURVES = (curve(3600.0), curve(4800.0), curve(6200.0))


def make_emulator(**changes):
    layers = mlp.init(KEY, (4, 16, 16, 3))
    options = {
        "box": (LOW, HIGH),
        "mu_0": 0.0,
        "record": EmulatorRecord("toy", "none", CURVES, {"seed": 2}, ("A citation.",)),
    } | changes
    scaling = ((LOW + HIGH) / 2, HIGH - LOW, np.full(3, -20.0))
    return PhotometricEmulator.create(layers, scaling, (FEATURES, BANDS), **options)


EMULATOR = make_emulator()
FROM_FEATURES = jax.jit(jax.vmap(EMULATOR.from_features))


def test_flux_is_shape_times_mass_over_distance():
    theta = Theta()
    distance = float(luminosity_distance(theta.redshift, PLANCK15)) * 1e6
    expected = np.asarray(EMULATOR.shape(theta), float) * 10**0.5 * (10 / distance) ** 2
    np.testing.assert_allclose(EMULATOR(theta), expected, rtol=1e-5)


def test_shape_is_the_network():
    theta = Theta()
    x = (np.array([0.3, np.log10(2.0), 0.4, 0.8]) - (LOW + HIGH) / 2) / (HIGH - LOW)
    expected = mlp.apply(EMULATOR.layers, jnp.asarray(x, float)) - 20.0
    np.testing.assert_allclose(EMULATOR.magnitudes(theta), expected, rtol=1e-5)
    np.testing.assert_allclose(EMULATOR.shape(theta), from_arsinh(expected, 0.0), rtol=1e-4)


@pytest.mark.parametrize("log_mass", [5.0, 8.0, 12.5])
def test_mass_is_exactly_linear(log_mass):
    reference = np.asarray(EMULATOR(Theta(log_mass_formed=10.0)), float)
    got = EMULATOR(Theta(log_mass_formed=log_mass))
    np.testing.assert_allclose(got, reference * 10 ** (log_mass - 10), rtol=5e-6)


def test_mass_is_exactly_linear_float64(x64):
    emulator = make_emulator()
    reference = emulator(Theta(log_mass_formed=10.0))
    got = emulator(Theta(log_mass_formed=12.5))
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, reference * 10**2.5, rtol=1e-13)


def test_jit_vmap_and_loop_agree():
    thetas = Theta(
        jnp.array([9.0, 10.0, 11.0]), jnp.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]]),
        jnp.array([0.5, 1.0, 9.0]), jnp.array([0.0, 1.0, 3.0]), jnp.array([0.01, 1.0, 2.0]),
    )  # fmt: skip
    one = [jax.tree.map(lambda leaf, i=i: leaf[i], thetas) for i in range(3)]
    looped = np.stack([EMULATOR(theta) for theta in one])
    np.testing.assert_allclose(jax.jit(jax.vmap(EMULATOR))(thetas), looped, rtol=2e-5)
    np.testing.assert_allclose(jax.jit(EMULATOR)(one[0]), looped[0], rtol=2e-5)
    np.testing.assert_array_equal(jax.jit(jax.vmap(EMULATOR.inside))(thetas), [True, True, True])


def test_second_call_does_not_compile(tmp_path):
    traces = []

    @jax.jit
    def run(emulator, theta):
        traces.append(1)
        return emulator(theta)

    run(EMULATOR, Theta(10.0, jnp.array([0.3, 0.7]), 1.0, 0.1, 0.5))
    run(EMULATOR, Theta(11.0, jnp.array([0.2, 0.8]), 2.0, 0.2, 0.6))
    # nor does an equal emulator from elsewhere
    EMULATOR.save(tmp_path / "e.h5")
    run(PhotometricEmulator.load(tmp_path / "e.h5"), Theta())
    assert len(traces) == 1


def test_gradients(x64):
    emulator = make_emulator()
    light = jax.jit(lambda theta: jnp.log(emulator(theta)))
    check_grads(light, (Theta(),), order=1, modes=("rev", "fwd"))


@jax.jit
def flux_and_slopes(theta):
    """Relative to the flux, as a likelihood has them: fluxes themselves may be 1e-25."""
    flux = EMULATOR(theta)
    return flux, jax.jacrev(lambda theta: EMULATOR(theta) / flux)(theta)


@pytest.mark.parametrize("redshift", [0.0, 1e-6, 2.0])
@pytest.mark.parametrize("log_mass", [2.0, 13.0])
@pytest.mark.parametrize("edge", [0, 1])
def test_finite_gradients_at_the_edges(redshift, log_mass, edge):
    stick = float(edge)
    theta = Theta(
        log_mass, jnp.array([stick, 1 - stick]), 10.0 ** (2 * edge - 1), 3.0 * edge, redshift
    )
    theta = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), theta)
    flux, jacobian = flux_and_slopes(theta)
    assert np.all(np.isfinite(flux))
    assert np.all(np.asarray(flux) > 0)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(jacobian))
    assert np.all(np.asarray(jacobian.log_mass_formed) == pytest.approx(np.log(10), rel=1e-4))


def test_inside():
    assert bool(EMULATOR.inside(Theta()))
    # mass is not learned, so no mass is out of range
    assert bool(EMULATOR.inside(Theta(log_mass_formed=3.0)))
    assert bool(EMULATOR.inside(Theta(dust=jnp.nextafter(jnp.float32(3), jnp.float32(4)))))
    assert not bool(EMULATOR.inside(Theta(dust=3.1)))
    assert not bool(EMULATOR.inside(Theta(dust=jnp.nan)))
    assert EMULATOR.outside_features(Theta()) == ()
    assert EMULATOR.outside_features(Theta(dust=-1.0, age=50.0)) == ("log10_age", "dust")


def test_pytree_round_trip():
    leaves, structure = jax.tree.flatten(EMULATOR)
    again = jax.tree.unflatten(structure, leaves)
    assert structure == jax.tree.structure(again)
    np.testing.assert_array_equal(again(Theta()), EMULATOR(Theta()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        again.mu_0 = 3.0


def test_cosmology_changes_the_distance_alone():
    other = EMULATOR.replace(cosmology=WMAP9)
    theta = Theta()
    ratio = (luminosity_distance(0.8, PLANCK15) / luminosity_distance(0.8, WMAP9)) ** 2
    np.testing.assert_allclose(other(theta) / EMULATOR(theta), np.full(3, ratio), rtol=1e-5)
    np.testing.assert_array_equal(other.shape(theta), EMULATOR.shape(theta))


def test_select_bands():
    x = np.random.default_rng(0).uniform(LOW, HIGH, (50, 4))
    f10 = np.asarray(from_arsinh(FROM_FEATURES(x), 0.0)) * 1.01
    measured = measure_error(EMULATOR, x, f10)
    some = measured.select(["r", "u"])
    np.testing.assert_allclose(some(Theta()), np.asarray(EMULATOR(Theta()))[[2, 0]], rtol=1e-6)
    assert some.band_names == ("r", "u")
    assert some.record.curves == (CURVES[2], CURVES[0])
    np.testing.assert_array_equal(
        some.error.covariance, np.asarray(measured.error.covariance)[np.ix_([2, 0], [2, 0])]
    )
    with pytest.raises(ValueError, match="no band K in this emulator: it has u, g, r"):
        EMULATOR.select(["u", "K"])


def test_bands_are_found_by_their_curves():
    wave = np.linspace(4000, 5600, 200)
    of_curve = CURVES[1].wave, CURVES[1].trans
    finer = Filter("finer", wave, 7.0 * np.interp(wave, *of_curve, left=0, right=0))
    assert EMULATOR.find_band(finer) == "g"
    assert EMULATOR.find_band(curve(4900.0)) is None
    with np.errstate(invalid="ignore", divide="ignore"):
        dark = Filter("dark", wave, np.zeros(200))
        assert EMULATOR.find_band(dark) is None
    assert curve_difference(CURVES[0], CURVES[0]) == pytest.approx(0.0, abs=1e-12)
    assert curve_difference(CURVES[0], CURVES[2]) == pytest.approx(1.0, abs=1e-3)


def test_file_round_trip(tmp_path):
    path = tmp_path / "toy.h5"
    x = np.random.default_rng(0).uniform(LOW, HIGH, (50, 4))
    emulator = measure_error(EMULATOR, x, np.full((50, 3), 1e8)).replace(cosmology=WMAP9)
    emulator.save(path)
    again = PhotometricEmulator.load(path)
    assert jax.tree.structure(again) == jax.tree.structure(emulator)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(emulator), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.record == emulator.record
    assert again.record.training == {"seed": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["toy.h5"]


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "toy.h5"
    EMULATOR.save(path)
    whole = path.read_bytes()
    with h5py.File(path, "r+") as file:
        file["arrays/layers/0/0"][0, 0] += 1e-3
    with pytest.raises(ValueError, match=r"toy\.h5: wrong checksum"):
        PhotometricEmulator.load(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        del file["attributes/mu_0"]
        file["attributes/mu_0"] = "35.0"
    with pytest.raises(ValueError, match=r"toy\.h5: wrong checksum"):
        PhotometricEmulator.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"toy\.h5: not a readable"):
        PhotometricEmulator.load(path)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match=r"toy\.h5: expected a 'jaxsed photometric emulator'"):
        PhotometricEmulator.load(path)
    with pytest.raises(FileNotFoundError, match="absent"):
        PhotometricEmulator.load(tmp_path / "absent.h5")


def test_measured_error_is_the_error_put_in():
    rng = np.random.default_rng(1)
    n = 40_000
    x = rng.uniform(LOW, HIGH, (n, 4))
    truth = np.asarray(FROM_FEATURES(jnp.asarray(x, float)), float)
    # known errors: g and r share half of theirs; u has an offset
    noise = rng.normal(size=(n, 3)) * [0.01, 0.02, 0.02]
    noise[:, 2] = 0.5 * noise[:, 1] + np.sqrt(0.75) * noise[:, 2]
    noise[:, 0] += 0.005
    error = measure_error(EMULATOR, x, np.asarray(from_arsinh(truth - noise, 0.0))).error
    np.testing.assert_allclose(error.mean, [0.005, 0, 0], atol=5e-4)
    np.testing.assert_allclose(error.sigma, [0.01, 0.02, 0.02], rtol=0.02)
    np.testing.assert_allclose(error.covariance[1, 2] / 0.02**2, 0.5, atol=0.02)
    normal = 0.02 * np.array([-3, -2, -1, 1, 2, 3])
    np.testing.assert_allclose(error.percentiles[1, 1:-1], normal, atol=0.003)
    np.testing.assert_allclose(error.absolute[1, :2], [0.994 * 0.02, 1.96 * 0.02], rtol=0.05)


def test_true_magnitudes_are_judged_where_flux_is_bright():
    x = np.random.default_rng(1).uniform(LOW, HIGH, (1000, 4))
    mu = np.asarray(FROM_FEATURES(jnp.asarray(x, float)), float)
    f10 = np.asarray(from_arsinh(mu + 0.01, 0.0)).astype(float)
    f10[:, 0] = 0.0  # a band the galaxies do not reach
    f10[:300, 1] = 0.0
    measured = measure_error(EMULATOR, x, f10)
    ab = measured.error_ab
    np.testing.assert_allclose(ab.fraction, [0.0, 0.7, 1.0], rtol=1e-6)
    assert np.isnan(ab.sigma[0])
    assert np.isnan(ab.covariance[0, 0])
    np.testing.assert_allclose(ab.mean[1:], -0.01, atol=1e-4)
    assert np.all(np.isfinite(measured.error.sigma))
    report = error_report(measured)
    json.loads(json.dumps(report, allow_nan=False))
    assert report["ab_where_bright"]["sigma"][0] is None


def toy_simulate(key, n):
    x = LOW + (HIGH - LOW) * np.asarray(jax.random.uniform(key, (n, 4)))
    slope = np.array([2.0, 1.0, 0.5])
    mu = -20 + slope * x[:, 2:3] + np.sin(2 * x[:, 3:] - slope) + x[:, :1] * x[:, 1:2]
    return x, np.asarray(from_arsinh(mu, 0.0))


TARGET = EmulatorTarget(FEATURES, BANDS, CURVES, "toy", "none", box=(LOW, HIGH))
SMALL = TrainSettings(
    n_train=20_000, n_test=5000, width=32, layers=4,
    fit=FitSettings(
        optimizer="soap", schedule="cosine", learning_rates=(1e-2, 1e-5), batch_size=250, epochs=12
    ),
)  # fmt: skip


def test_training(tmp_path):
    emulator, history = train_photometric(
        KEY, toy_simulate, TARGET, settings=SMALL, checkpoint=tmp_path / "c.h5", progress=False
    )
    assert float(jnp.max(emulator.error.sigma)) < 0.02
    assert float(jnp.max(jnp.abs(emulator.error.mean))) < 0.005
    x, f10 = toy_simulate(jax.random.key(77), 1)
    v1, log_age, dust, z = x[0]
    theta = Theta(10.0, jnp.array([v1, 1 - v1]), 10**log_age, dust, z)
    np.testing.assert_allclose(emulator.shape(theta), f10[0], rtol=0.1)
    assert bool(emulator.inside(theta))
    training = emulator.record.training
    assert training["settings"]["width"] == 32
    assert training["samples_trained_on"] == history.samples[-1]

    emulator.save(tmp_path / "e.h5")
    again = PhotometricEmulator.load(tmp_path / "e.h5")
    np.testing.assert_array_equal(again(theta), emulator(theta))

    card = model_card(again, "Toy")
    for text in ("4–32–32–32–3", "| u |", "beta_stick_1", "Largest correlation", "seed"):
        assert text in card
    assert error_table(again).row_count == 3


def test_losses():
    layers = ((jnp.zeros((2, 3)), jnp.zeros(3)),)
    x, y = jnp.zeros((4, 2)), jnp.ones((4, 3)) * jnp.array([1.0, 2.0, 3.0])
    key = jax.random.key(0)
    assert float(rmse_loss()(layers, (x, y), key)) == pytest.approx(np.sqrt(14 / 3))
    assert float(rmse_loss(kind="band_rmse")(layers, (x, y), key)) == pytest.approx(2.0)
    gradient = jax.jit(jax.grad(rmse_loss()))(layers, (x, 0 * y), key)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))


def test_training_on_fresh_pairs():
    settings = dataclasses.replace(SMALL, fresh=True, n_train=5000, loss="band_rmse")
    emulator, _ = train_photometric(KEY, toy_simulate, TARGET, settings=settings, progress=False)
    assert float(jnp.max(emulator.error.sigma)) < 0.1


def test_simulations_that_fail():
    def some_bad(key, n):
        x, f = (np.array(a) for a in toy_simulate(key, n))
        f[::200] = np.nan
        return x, f

    pairs = simulate_pairs(KEY, some_bad, 1000, (4, 3))
    assert (len(pairs.features), len(pairs.f10), pairs.n_invalid) == (995, 995, 5)
    assert np.isfinite(pairs.f10).all()
    with pytest.raises(ValueError, match="50 of 50 simulations are not finite"):
        simulate_pairs(KEY, lambda key, n: (np.ones((n, 4)), np.full((n, 3), np.nan)), 50, (4, 3))
    with pytest.raises(ValueError, match=r"expected simulate to return .* \(50, 3\)"):
        simulate_pairs(KEY, lambda key, n: (np.ones((n, 4)), np.ones((n, 2))), 50, (4, 3))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"box": (LOW, LOW)}, "box_low < box_high"),
        ({"box": (LOW[:2], HIGH)}, "box_low of shape"),
        ({"activation": "speculator"}, "expected 4 arrays"),
        ({"record": EmulatorRecord(curves=CURVES[:2])}, "one per band"),
    ],
)
def test_wrong_parts(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_emulator(**changes)


def test_wrong_names_and_tests():
    layers = mlp.init(KEY, (4, 8, 3))
    scaling = (LOW, HIGH - LOW, np.zeros(3))
    for names, complaint in (
        ((FEATURES[:3], BANDS), "4 different feature names"),
        ((FEATURES, ("u", "g", "g")), "3 different band names"),
    ):
        with pytest.raises(ValueError, match=complaint):
            PhotometricEmulator.create(layers, scaling, names, box=(LOW, HIGH), mu_0=0.0)
    with pytest.raises(ValueError, match="expected f10 of shape"):
        measure_error(EMULATOR, np.ones((5, 4)), np.ones((5, 2)))
    with pytest.raises(ValueError, match="width >= 1"):
        TrainSettings(width=0)
    with pytest.raises(ValueError, match="unknown loss 'mse'"):
        TrainSettings(loss="mse")


def test_softening_near_zero_flux():
    """Fluxes of zero, which absorption by the intergalactic medium makes, are learnable values."""
    mu = to_arsinh(np.zeros(3), 0.0)
    np.testing.assert_allclose(mu, 0.0, atol=1e-6)


def test_sigma_at_a_theta_is_the_error_there():
    rng = np.random.default_rng(4)
    x = rng.uniform(LOW, HIGH, (40_000, 4))
    truth = np.asarray(FROM_FEATURES(jnp.asarray(x, float)), float)
    # dusty galaxies are emulated four times worse; the second band is equally bad everywhere
    noise = 0.01 * rng.normal(size=(40_000, 3)) * np.where(x[:, 2:3] > 1.5, [4, 1, 4], 1)
    f10 = np.asarray(from_arsinh(truth - noise, 0.0))
    measured = measure_error(EMULATOR, x, f10)
    np.testing.assert_array_equal(measured.sigma(Theta()), measured.error_ab.sigma)
    own = train_spread(KEY, measured, x, f10)
    np.testing.assert_allclose(own.sigma(Theta(dust=0.5)), [0.01, 0.01, 0.01], rtol=0.15)
    np.testing.assert_allclose(own.sigma(Theta(dust=2.5)), [0.04, 0.01, 0.04], rtol=0.15)
    # outside the box it is that of the edge
    np.testing.assert_allclose(own.sigma(Theta(dust=9.0)), own.sigma(Theta(dust=3.0)), rtol=1e-5)
    figures = own.record.training["spread"]
    # two bands gain ln of the mean spread over the spread, on average over both halves
    expected = np.log(np.sqrt((1 + 16) / 2)) - 0.5 * np.log(4)
    # of which a smooth function of dust misses a little at the step
    assert 0.8 * 2 / 3 * expected < figures["log_likelihood_gain"] < 1.05 * 2 / 3 * expected
    assert figures["beyond_3"] < 0.006
    assert figures["beyond_3_of_one_sigma"] > 2 * figures["beyond_3"]
    some = own.select(["r", "u"])
    np.testing.assert_allclose(some.sigma(Theta()), np.asarray(own.sigma(Theta()))[[2, 0]])


def test_sigma_at_a_theta_is_left_out_where_it_does_not_help(tmp_path):
    rng = np.random.default_rng(4)
    x = rng.uniform(LOW, HIGH, (12_000, 4))
    truth = np.asarray(FROM_FEATURES(jnp.asarray(x, float)), float)
    f10 = np.asarray(from_arsinh(truth - 0.01 * rng.normal(size=truth.shape), 0.0))
    even = train_spread(KEY, measure_error(EMULATOR, x, f10), x, f10)
    if even.record.training["spread"]["log_likelihood_gain"] <= 0:
        assert even.spread is None
    np.testing.assert_allclose(even.sigma(Theta()), 0.01, rtol=0.1)
    with pytest.raises(ValueError, match="10000 pairs or more, got 100"):
        train_spread(KEY, EMULATOR, x[:100], f10[:100])
    uneven = even.replace(spread=mlp.init(KEY, (4, 8, 3)))
    uneven.save(tmp_path / "e.h5")
    again = PhotometricEmulator.load(tmp_path / "e.h5")
    np.testing.assert_array_equal(again.sigma(Theta()), uneven.sigma(Theta()))


def test_training_range_is_one_rule_for_all_emulators():
    """Ends count, rounding beyond them too; NaN is out; an unknown range holds every number."""
    low, high = jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([1.0, 10.0, jnp.inf])
    for x, expected in (
        ([0.0, 10.0, 1e30], [False, False, False]),
        ([-5e-6, 10.00005, -1e30], [False, False, False]),
        ([-2e-5, 10.0002, 0.0], [True, True, False]),
        ([jnp.nan, 5.0, jnp.nan], [True, False, True]),
    ):
        np.testing.assert_array_equal(outside(jnp.array(x), low, high), expected)
