"""Stitched emulators: weights of the windows, smooth edges, restriction, files, training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_emulator import BANDS, CURVES, FEATURES, HIGH, LOW, Theta

from jaxsed.bands.magnitudes import from_arsinh
from jaxsed.cosmology import WMAP9
from jaxsed.emulators import (
    EmulatorRecord,
    EmulatorTarget,
    ErrorSummary,
    PhotometricEmulator,
    StitchedEmulator,
    TrainSettings,
    is_photometric,
    load_emulator,
    measure_error,
    train_stitched,
)
from jaxsed.emulators.photometric.windows import WINDOWS
from jaxsed.learn import FitSettings
from jaxsed.nets import mlp

EDGES = sorted({edge for window in WINDOWS for edge in window})


def member(i, window, **changes):
    """A random network, trained on nothing but said to cover the window."""
    low, high = np.array(LOW), np.array(HIGH)
    low[3], high[3] = window
    options = {
        "box": (low, high),
        "mu_0": 0.0,
        "record": EmulatorRecord("toy", "none", CURVES, {"seed": i}),
        "names": (FEATURES, BANDS),
    } | changes
    names = options.pop("names")
    layers = mlp.init(jax.random.key(i), (4, 16, 3))
    scaling = ((low + high) / 2, high - low, np.full(3, -20.0))
    return PhotometricEmulator.create(layers, scaling, names, **options)


def make_stitched(windows=WINDOWS):
    return StitchedEmulator.create([member(i, w) for i, w in enumerate(windows)], windows)


STITCHED = make_stitched()
FLUX = jax.jit(lambda emulator, theta: emulator(theta))
MAGNITUDES = jax.jit(lambda emulator, theta: emulator.magnitudes(theta))
SIGMA = jax.jit(lambda emulator, theta: emulator.sigma(theta))
INSIDE = jax.jit(lambda emulator, theta: emulator.inside(theta))


def test_weights_sum_to_one_and_two_count_at_most():
    z = np.linspace(-0.5, 13.0, 2701)
    weights = np.asarray(jax.jit(jax.vmap(STITCHED.weights))(z))
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=3e-7)
    assert (weights >= 0).all()
    assert ((weights > 0).sum(1) <= 2).all()
    # a member counts in its own window only
    for i, (low, high) in enumerate(WINDOWS):
        low, high = (-np.inf if i == 0 else low), (np.inf if i == len(WINDOWS) - 1 else high)
        np.testing.assert_array_equal(weights[:, i] > 0, (z > low) & (z < high))
    np.testing.assert_allclose(STITCHED.weights(2.0)[:3], [0.5, 0.5, 0], atol=1e-6)
    # eq. 12 a quarter into an overlap: sin^2 of a quarter of a right angle
    expected = np.sin(np.pi / 8) ** 2
    np.testing.assert_allclose(STITCHED.weights(1.875)[:2], [1 - expected, expected], rtol=1e-5)


def test_value_and_derivative_are_continuous(x64):
    stitched = make_stitched()

    def log_flux(z):  # at 10 pc: the distance alone is steep near redshift 0
        return jnp.log(stitched.shape(Theta(redshift=z)))

    @jax.jit
    @jax.vmap
    def both(z):
        return jax.jvp(log_flux, (z,), (jnp.ones(()),))

    edges = np.array(EDGES)
    # to 1e-6 on either side a smooth function changes by 1e-6 of its derivatives
    low, middle, high = (both(edges + step) for step in (-1e-6, 0.0, 1e-6))
    np.testing.assert_allclose(low[0], middle[0], atol=1e-4)
    np.testing.assert_allclose(high[0], middle[0], atol=1e-4)
    np.testing.assert_allclose(low[1], high[1], atol=2e-3)
    np.testing.assert_allclose(middle[1], high[1], atol=1e-3)
    # and the derivative is that of the function, on both sides
    h = 1e-5
    for z in (edges - 2 * h, edges + 2 * h):
        differences = (both(z + h)[0] - both(z - h)[0]) / (2 * h)
        np.testing.assert_allclose(both(z)[1], differences, rtol=1e-3, atol=1e-4)
    reverse = jax.jit(jax.vmap(jax.jacrev(log_flux)))
    np.testing.assert_allclose(reverse(edges), middle[1], rtol=1e-8)


def test_slope_test_would_see_a_kink(x64):
    # linear weights have a jump of their derivative at every edge: the tolerances above see it
    a, b = (member(i, w) for i, w in enumerate(WINDOWS[:2]))

    def log_flux(z):
        f = jnp.clip((z - 1.75) / 0.5, 0.0, 1.0)
        theta = Theta(redshift=z)
        return jnp.log((1 - f) * a.shape(theta) + f * b.shape(theta))

    slope = jax.jit(jax.jacfwd(log_flux))
    assert np.abs(slope(1.75 - 1e-6) - slope(1.75 + 1e-6)).max() > 0.1


def test_outside_overlaps_it_is_the_member():
    for i, z in ((0, 0.5), (3, 7.0), (5, 11.0)):
        theta = Theta(redshift=z)
        expected = STITCHED.members[i]
        for of in (FLUX, MAGNITUDES):
            np.testing.assert_allclose(of(STITCHED, theta), of(expected, theta), rtol=1e-6)


def test_fluxes_are_combined_not_magnitudes():
    theta = Theta(redshift=2.0)
    a, b = (np.asarray(FLUX(m, theta), float) for m in STITCHED.members[:2])
    np.testing.assert_allclose(FLUX(STITCHED, theta), (a + b) / 2, rtol=1e-5)
    assert (np.abs(np.sqrt(a * b) / ((a + b) / 2) - 1) > 1e-3).any()


def test_jit_vmap_and_loop_agree():
    z = jnp.linspace(0.0, 12.0, 25)
    looped = np.stack([STITCHED(Theta(redshift=v)) for v in z[::6]])
    mapped = jax.jit(jax.vmap(lambda v: STITCHED(Theta(redshift=v))))(z)
    np.testing.assert_allclose(mapped[::6], looped, rtol=3e-5)
    gradient = jax.jit(jax.vmap(jax.jacrev(lambda v: jnp.log(STITCHED(Theta(redshift=v))))))(z)
    assert np.isfinite(gradient).all()


def test_a_member_that_does_not_count_cannot_overflow():
    # a first member that is tame in its window and of infinite flux at redshift 12
    x_z = jnp.zeros((4, 1)).at[3, 0].set(20.0)
    layers = ((x_z, jnp.array([-12.0])), (jnp.full((1, 3), -3.0), jnp.zeros(3)))
    steep = STITCHED.members[0].replace(layers=layers)
    stitched = dataclasses.replace(STITCHED, members=(steep, *STITCHED.members[1:]))
    theta = Theta(redshift=jnp.asarray(12.0))
    assert np.isfinite(FLUX(steep, Theta(redshift=jnp.asarray(2.25)))).all()
    assert np.isinf(FLUX(steep, theta)).all()
    gradient = jax.jit(jax.jacrev(lambda t: jnp.log(stitched(t))))(theta)
    assert np.isfinite(FLUX(stitched, theta)).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_restriction_keeps_what_counts():
    assert STITCHED.record.training["members"][3] == {"seed": 3}
    assert STITCHED.restrict(1.0) is STITCHED.members[0]
    assert STITCHED.restrict(1.75) is STITCHED.members[0]
    assert STITCHED.restrict(2.25) is STITCHED.members[1]
    assert STITCHED.restrict(0.0, 12.0) is STITCHED
    two = STITCHED.restrict(1.9, 4.0 - 0.3)
    np.testing.assert_array_equal(two.windows, WINDOWS[:2])
    z = jnp.linspace(1.9, 3.7, 19)
    of_redshift = jax.jit(lambda emulator, z: jax.vmap(lambda v: emulator(Theta(redshift=v)))(z))
    np.testing.assert_allclose(of_redshift(two, z), of_redshift(STITCHED, z), rtol=1e-5)
    for low, high in ((1.0, 13.0), (3.0, 2.0), (-1.0, 2.0), (np.nan, 1.0)):
        with pytest.raises(ValueError, match="redshifts in order from 0 to 12"):
            STITCHED.restrict(low, high)


def test_groups_cover_a_catalogue():
    z = np.random.default_rng(0).uniform(0, 12, 300)
    groups = STITCHED.groups(z)
    assert len(groups) == 11  # six windows, five overlaps
    assert len({jax.tree.structure(emulator) for _, emulator in groups}) == 2  # compiled twice
    rows = np.concatenate([rows for rows, _ in groups])
    np.testing.assert_array_equal(np.sort(rows), np.arange(300))
    assert max(len(getattr(e, "members", (e,))) for _, e in groups) == 2
    thetas = Theta(*(jnp.broadcast_to(leaf, (300, *jnp.shape(leaf))) for leaf in Theta()))
    thetas = thetas._replace(redshift=jnp.asarray(z, float))
    run = jax.jit(lambda emulator, thetas: jax.vmap(emulator)(thetas))
    whole = np.asarray(run(STITCHED, thetas))
    for rows, emulator in groups:
        # a batch of one size, so that its shape does not compile anew
        part = run(
            emulator, jax.tree.map(lambda leaf, rows=rows: leaf[np.resize(rows, 64)], thetas)
        )
        np.testing.assert_allclose(part[: len(rows)], whole[rows], rtol=3e-5)


def test_inside_asks_the_members_that_count():
    narrow = member(1, WINDOWS[1])
    narrow = narrow.replace(box_high=narrow.box_high.at[2].set(1.0))  # less dust
    stitched = StitchedEmulator.create([member(0, WINDOWS[0]), narrow], WINDOWS[:2])
    assert bool(INSIDE(stitched, Theta(redshift=1.0, dust=2.0)))
    assert not bool(INSIDE(stitched, Theta(redshift=2.0, dust=2.0)))
    assert bool(INSIDE(stitched, Theta(redshift=2.0, dust=0.5)))
    assert not bool(INSIDE(stitched, Theta(redshift=4.5)))
    assert not bool(INSIDE(stitched, Theta(redshift=-0.1)))
    assert stitched.outside_features(Theta(redshift=1.0, dust=2.0)) == ()
    assert stitched.outside_features(Theta(redshift=4.5, dust=2.0)) == ("dust", "redshift")


def test_sigma_is_that_of_the_members_that_count():
    """Of a single one its own, in an overlap the weighted mean of both."""
    own = np.array([[0.01, 0.02, 0.03], [0.1, 0.5, 0.2], [np.nan, np.nan, np.nan]])
    unknown = ErrorSummary.unknown(3)
    members = [
        dataclasses.replace(
            member(i, WINDOWS[i]), error_ab=unknown.replace(sigma=jnp.asarray(own[i], float))
        )
        for i in range(3)
    ]
    stitched = StitchedEmulator.create(members, WINDOWS[:3])
    (low, high), end = WINDOWS[1][:1] + WINDOWS[0][1:], WINDOWS[1][1]
    for redshift, expected in (
        (1.0, own[0]),
        (3.0, own[1]),
        # a quarter of the way through the overlap: sin^2 and cos^2 of 22.5 degrees
        (low + 0.25 * (high - low), 0.8535534 * own[0] + 0.1464466 * own[1]),
        (low + 0.75 * (high - low), 0.1464466 * own[0] + 0.8535534 * own[1]),
    ):
        found = np.asarray(SIGMA(stitched, Theta(redshift=redshift)))
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.isnan(SIGMA(stitched, Theta(redshift=0.5 * (WINDOWS[2][0] + end)))).all()


def test_select_and_find():
    some = STITCHED.select(["r", "u"])
    assert some.band_names == ("r", "u")
    theta = Theta(redshift=2.1)
    np.testing.assert_allclose(
        FLUX(some, theta), np.asarray(FLUX(STITCHED, theta))[[2, 0]], rtol=1e-6
    )
    assert STITCHED.find_band(CURVES[1]) == "g"
    assert float(STITCHED.box_low[3]) == 0.0
    assert float(STITCHED.box_high[3]) == 12.0


def test_file_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform(LOW, [*HIGH[:3], 12.0], (50, 4))
    emulator = measure_error(STITCHED, x, np.full((50, 3), 1e8))
    emulator.save(tmp_path / "s.h5")
    again = StitchedEmulator.load(tmp_path / "s.h5")
    assert jax.tree.structure(again) == jax.tree.structure(emulator)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(emulator), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.record == emulator.record
    assert isinstance(load_emulator(tmp_path / "s.h5"), StitchedEmulator)
    assert is_photometric(tmp_path / "s.h5")
    with pytest.raises(ValueError, match="expected a 'jaxsed photometric emulator' file"):
        PhotometricEmulator.load(tmp_path / "s.h5")


def test_pooled_errors_are_those_of_all_pairs():
    rng = np.random.default_rng(3)
    noise = [rng.normal(m, s, (n, 2)) for m, s, n in ((0.0, 0.01, 20_000), (0.03, 0.02, 60_000))]
    noise[1][:, 1] += noise[1][:, 0]
    pooled = ErrorSummary.pooled([ErrorSummary.of(r) for r in noise], np.array([1.0, 3.0]))
    together = ErrorSummary.of(np.concatenate(noise))
    for name in ("mean", "sigma", "covariance", "fraction"):
        np.testing.assert_allclose(getattr(pooled, name), getattr(together, name), rtol=1e-4)
    assert (np.abs(pooled.percentiles) >= np.abs(together.percentiles) - 1e-6).all()
    assert (np.asarray(pooled.absolute) >= np.asarray(together.absolute) - 1e-6).all()


@pytest.mark.parametrize(
    ("windows", "complaint"),
    [
        (((0.0, 2.0), (2.5, 4.0)), "0 and 1 do not overlap"),
        (((0.0, 2.0), (1.5, 4.0), (1.8, 6.0)), "three windows overlap at redshift 1.8"),
        (((1.0, 3.0), (0.0, 2.0)), "by increasing redshift"),
        (((0.0, 4.0), (1.0, 3.0)), "by increasing redshift"),
        (((2.0, 0.0),), "low < high"),
    ],
)
def test_bad_windows(windows, complaint):
    with pytest.raises(ValueError, match=complaint):
        StitchedEmulator.create([STITCHED.members[0]] * len(windows), windows)


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ({"names": (FEATURES, ("u", "g", "i"))}, "expected band_names"),
        ({"names": (("beta_stick_1", "log10_age", "dust2", "redshift"), BANDS)}, "feature_names"),
        ({"mu_0": 1.0}, "expected mu_0 0.0, got 1.0"),
        ({"cosmology": WMAP9}, "cosmology"),
        ({"box": (LOW, HIGH)}, "training on redshifts 1.75 to 4.25, got 0 to 2"),
    ],
)
def test_members_that_do_not_match(second, complaint):
    members = [member(0, WINDOWS[0]), member(1, WINDOWS[1], **second)]
    with pytest.raises(ValueError, match=complaint):
        StitchedEmulator.create(members, WINDOWS[:2])


def simulate_between(low, high):
    def simulate(key, n):
        x = np.array(jax.random.uniform(key, (n, 2)))
        x[:, 1] = low + (high - low) * x[:, 1]
        mu = -20 + np.sin(x[:, 1:] + [0.0, 1.0]) + x[:, :1]
        return x, np.asarray(from_arsinh(mu, 0.0))

    return simulate


def test_training(tmp_path):
    target = EmulatorTarget(("dust", "redshift"), ("u", "g"), CURVES[:2], "toy", "none")
    settings = TrainSettings(
        n_train=5000, n_test=1000, width=16, layers=3,
        fit=FitSettings(
            optimizer="adam", schedule="cosine", learning_rates=(1e-2, 1e-5), batch_size=200,
            epochs=8,
        ),
    )  # fmt: skip
    windows = ((0.0, 3.0), (2.5, 6.0))
    emulator = train_stitched(
        jax.random.key(0), simulate_between, target,
        windows=windows, settings=settings, folder=tmp_path, progress=False,
    )  # fmt: skip
    x, f10 = simulate_between(2.5, 3.0)(jax.random.key(9), 500)
    in_overlap = measure_error(emulator, x, f10)
    assert float(in_overlap.error.sigma.max()) < 0.05
    assert float(emulator.error.sigma.max()) < 0.05
    assert bool(emulator.inside(Theta(dust=0.5, redshift=0.0)))
    assert bool(emulator.inside(Theta(dust=0.5, redshift=6.0)))

    def refuse(low, high):
        return lambda key, n: pytest.fail("simulated again")

    again = train_stitched(
        jax.random.key(0), refuse, target,
        windows=windows, settings=settings, folder=tmp_path, progress=False,
    )  # fmt: skip
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(emulator), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="features with a redshift"):
        train_stitched(
            jax.random.key(0), simulate_between, target._replace(feature_names=("dust", "age"))
        )
