"""Which width is enough: shared pairs, resumed runs, the scaling, and the choice itself."""

import json
import math

import jax
import numpy as np
import pytest
from test_emulator import HIGH, KEY, LOW, TARGET, toy_simulate

from jaxsed.bands.magnitudes import to_arsinh
from jaxsed.emulators import TrainSettings, choose_width
from jaxsed.emulators.training.pairs import Pairs, PairSets, scaled, scaling_of, simulate_pairs
from jaxsed.emulators.training.photometric import train_photometric
from jaxsed.emulators.training.width_scan import WidthResult, WidthScaling, judge
from jaxsed.emulators.training.widths import share_seconds, simulate_sets
from jaxsed.emulators.validation.speed import Timing
from jaxsed.learn import FitSettings

SETTINGS = TrainSettings(
    n_train=4000, n_test=2000, layers=3,
    fit=FitSettings(
        optimizer="adam", schedule="cosine", learning_rates=(1e-2, 1e-5), batch_size=200, epochs=6
    ),
)  # fmt: skip


class Counted:
    """A simulator that counts its calls, and may die at one of them."""

    def __init__(self, dies_at=None):
        self.calls, self.dies_at = 0, dies_at

    def __call__(self, key, n):
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        self.calls += 1
        return toy_simulate(key, n)


def result(width, sigma, correlation=0.0):
    """A record with these errors."""
    return WidthResult(
        width, np.asarray(sigma), np.asarray(sigma), 1e-3, correlation, correlation, correlation,
        1.0, Timing(*[1.0] * 5), 1.0, 0.01,
    )  # fmt: skip


def test_scaling_of_a_power_law():
    widths = np.array([64, 128, 256, 512])
    exact = WidthScaling.of(widths, 3.0 * widths**-0.8)
    assert exact.slope == pytest.approx(-0.8)
    assert exact.slope_error == pytest.approx(0.0, abs=1e-6)
    assert exact.width_for(3.0 * 300**-0.8) == pytest.approx(300.0)
    # scatter of 10 % in four points: the textbook error of a slope
    rng = np.random.default_rng(0)
    tries = [
        WidthScaling.of(widths, 3.0 * widths**-0.8 * np.exp(rng.normal(0, 0.1, 4)))
        for _ in range(2000)
    ]
    x = np.log(widths)
    expected = 0.1 / math.sqrt(np.sum((x - x.mean()) ** 2))
    assert np.std([t.slope for t in tries]) == pytest.approx(expected, rel=0.05)
    assert np.mean([t.slope_error**2 for t in tries]) == pytest.approx(expected**2, rel=0.1)
    assert WidthScaling.of([64, 128], [0.1, 0.2]).width_for(0.05) == math.inf
    assert math.isnan(WidthScaling.of([64, 128], [0.1, 0.2]).slope_error)


def test_the_smallest_sufficient_width_is_chosen():
    target = TARGET._replace(band_names=("u", "g"))
    survey = np.array([0.05, 0.02])
    scan = judge(
        target,
        (result(64, [0.04, 0.04]), result(128, [0.02, 0.015]), result(256, [0.01, 0.01])),
        survey,
    )
    assert scan.chosen == 128
    # the same errors, but correlated at the smaller width
    scan = judge(target, (result(128, [0.02, 0.015], 0.3), result(256, [0.01, 0.01])), survey)
    assert scan.chosen == 256
    # the worst band decides, and the scaling says where it would be enough: errors as 1/N
    scan = judge(target, (result(64, [0.01, 0.16]), result(128, [0.005, 0.08])), survey)
    assert scan.chosen is None
    assert scan.predicted == pytest.approx(512.0)
    assert "worst g (0.080 against 0.020 mag)" in scan.reason
    assert "width of 512" in scan.reason
    scan = judge(target, (result(64, [0.01, 0.01], 0.9), result(128, [0.01, 0.01], 0.4)), survey)
    assert scan.chosen is None
    assert "correlations of the total errors reach 0.40" in scan.reason


def test_ladder(tmp_path):
    simulate = Counted()
    scan = choose_width(
        KEY, simulate, TARGET,
        widths=(16, 4), settings=SETTINGS, sigma_survey=0.2, folder=tmp_path, progress=False,
    )  # fmt: skip
    assert simulate.calls == 2  # training and test pairs, once for both widths
    assert [r.width for r in scan.results] == [4, 16]
    small, large = (r.sigma for r in scan.results)
    assert (large < small).all()
    assert scan.scaling_mean.slope < 0
    assert scan.results[1].validation_loss < scan.results[0].validation_loss
    # each width is what training it alone gives
    alone, _ = train_photometric(
        KEY, toy_simulate, TARGET,
        settings=TrainSettings(**vars(SETTINGS) | {"width": 16}), progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(alone.error.sigma, scan.results[1].sigma_arsinh, rtol=1e-3)
    assert json.loads(json.dumps(scan.to_dict(), allow_nan=False))["bands"] == ["u", "g", "r"]
    assert scan.table().row_count == 2

    # again: nothing is simulated or trained, and the answer is the same
    again = choose_width(
        KEY, Counted(dies_at=0), TARGET,
        widths=(4, 16), settings=SETTINGS, sigma_survey=0.2, folder=tmp_path, progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(again.results[0].sigma, small)
    with pytest.raises(ValueError, match=r"train holds other pairs"):
        choose_width(
            jax.random.key(3), simulate, TARGET, settings=SETTINGS, folder=tmp_path, progress=False
        )
    pairs = simulate_sets(KEY, toy_simulate, TARGET, SETTINGS, folder=tmp_path)
    other = TrainSettings(**vars(SETTINGS) | {"loss": "band_rmse"})
    with pytest.raises(ValueError, match=r"width_4\.h5 is of a run with another key or settings"):
        choose_width(
            KEY, pairs, TARGET, widths=(4, 16), settings=other, folder=tmp_path, progress=False
        )


def test_total_correlation_is_that_of_survey_and_emulator(tmp_path):
    # next to noise that is far larger the emulator's correlations vanish; next to none they rule
    simulate = Counted()
    scan = choose_width(
        KEY, simulate, TARGET,
        widths=(4, 8), settings=SETTINGS, sigma_survey=100.0, folder=tmp_path, progress=False,
    )  # fmt: skip
    for r in scan.results:
        assert r.correlation_total < 1e-3
        assert r.inflation == pytest.approx(1.0, abs=1e-2)
    sharp = choose_width(  # of the same networks, which are kept
        KEY, simulate, TARGET,
        widths=(4, 8), settings=SETTINGS, sigma_survey=1e-4, folder=tmp_path, progress=False,
    )  # fmt: skip
    for r in sharp.results:
        assert r.correlation_total == pytest.approx(r.correlation, rel=1e-3)
        assert 1.0 < r.inflation <= 3.0
    assert scan.chosen == 4
    assert sharp.chosen is None


def test_interrupted_simulations_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxsed.emulators.training.pairs._CHUNK", 300)
    whole = simulate_pairs(KEY, toy_simulate, 1000, (4, 3))
    dying = Counted(dies_at=2)
    with pytest.raises(KeyboardInterrupt):
        simulate_pairs(KEY, dying, 1000, (4, 3), folder=tmp_path)
    rest = Counted()
    pairs = simulate_pairs(KEY, rest, 1000, (4, 3), folder=tmp_path)
    assert (dying.calls, rest.calls) == (2, 2)
    np.testing.assert_array_equal(pairs.features, whole.features)
    np.testing.assert_array_equal(pairs.f10, whole.f10)


def test_scaled_pairs_are_standardised():
    pairs = simulate_pairs(KEY, toy_simulate, 3000, (4, 3))
    scaling = scaling_of(pairs, 0.0)
    x, y = scaled(pairs, scaling, 0.0)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), 1, rtol=1e-4)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    back = x * scaling.feature_scale + scaling.feature_shift
    np.testing.assert_allclose(back, pairs.features, atol=1e-5)
    np.testing.assert_allclose(y + scaling.output_mean, to_arsinh(pairs.f10, 0.0), atol=1e-4)


def test_shared_seconds():
    seconds = share_seconds((64, 128, 256), TARGET, 100.0)
    assert sum(seconds.values()) == pytest.approx(100.0)
    assert 3.5 < seconds[256] / seconds[128] < 4.0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"widths": (64, 64)}, "two or more positive widths"),
        ({"settings": TrainSettings(fresh=True)}, "fresh=False"),
        ({"sigma_survey": [0.1, 0.1]}, "uncertainties .* of 3 bands"),
        ({"error_floor": 0.0}, "positive uncertainties"),
    ],
)
def test_wrong_requests(options, complaint):
    pairs = Pairs(np.zeros((10, 4), np.float32) + LOW, np.ones((10, 3), np.float32))
    with pytest.raises(ValueError, match=complaint):
        choose_width(KEY, PairSets(pairs, pairs), TARGET._replace(box=(LOW, HIGH)), **options)


def simulate_with_tangents(key, n):
    """The toy simulator with directions and the changes of its fluxes along them."""
    x, f10 = toy_simulate(key, n)
    direction = np.array(jax.random.normal(jax.random.fold_in(key, 1), x.shape))
    step = 1e-3
    slope = [toy_f10(x + sign * step * direction) for sign in (1, -1)]
    slope = (slope[0] - slope[1]) / (2 * step)
    direction[0] = np.nan  # no derivative there
    return x, f10, direction, slope


def toy_f10(x):
    slope = np.array([2.0, 1.0, 0.5])
    mu = -20 + slope * x[:, 2:3] + np.sin(2 * x[:, 3:] - slope) + x[:, :1] * x[:, 1:2]
    return 10 ** (-0.4 * mu)  # so far above the softening that arsinh is AB


def test_training_on_derivatives(tmp_path):
    pairs = simulate_pairs(KEY, simulate_with_tangents, 500, (4, 3), tangents=True)
    assert pairs.n_invalid == 0  # a pair without a derivative still has its value
    scaling = scaling_of(pairs, 0.0)
    x, y, direction, slope = scaled(pairs, scaling, 0.0)
    assert not direction[0].any() and not slope[0].any()
    np.testing.assert_allclose(np.sqrt(np.mean(direction[1:] ** 2, 1)), 1.0, rtol=1e-5)
    # the changes are those of the magnitudes along the direction
    step = 1e-2
    there = (x + step * direction) * scaling.feature_scale + scaling.feature_shift
    change = -2.5 * np.log10(toy_f10(there)) - scaling.output_mean - y
    np.testing.assert_allclose(change[1:] / step, slope[1:], atol=0.1)

    def train(sobolev):
        settings = TrainSettings(**vars(SETTINGS) | {"width": 16, "sobolev": sobolev})
        emulator, _ = train_photometric(
            KEY, simulate_with_tangents, TARGET, settings=settings, progress=False
        )
        return emulator

    points, f10, v, truth = simulate_with_tangents(jax.random.key(5), 400)
    truth = -2.5 / np.log(10) * truth[1:] / f10[1:]

    def gradient_error(emulator):
        found = jax.vmap(lambda x, v: jax.jvp(emulator.from_features, (x,), (v,))[1])(
            points[1:].astype(np.float32), v[1:].astype(np.float32)
        )
        return np.mean(np.abs(found - truth))

    assert gradient_error(train(1.0)) < 0.8 * gradient_error(train(0.0))
    with pytest.raises(ValueError, match=r"\(4000, 4\), \(4000, 3\), \(4000, 4\), \(4000, 3\)"):
        train_photometric(
            KEY, toy_simulate, TARGET,
            settings=TrainSettings(**vars(SETTINGS) | {"sobolev": 1.0}), progress=False,
        )  # fmt: skip
    kept = simulate_pairs(
        KEY, simulate_with_tangents, 500, (4, 3), tangents=True, folder=tmp_path / "p"
    )
    np.testing.assert_array_equal(kept.slope, pairs.slope)
