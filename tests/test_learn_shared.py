"""What trained networks share: batches, calibration, distance, records, flags in words."""

import dataclasses
from enum import IntFlag

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed.core.flags import flag_counts, flag_text
from jaxsed.learn import FitSettings, History
from jaxsed.learn.batches import in_batches
from jaxsed.learn.calibration import coverage, quantile_factor, rms_factor, robust_scatter
from jaxsed.learn.distance import mahalanobis
from jaxsed.learn.ensemble import fit_ensemble
from jaxsed.learn.record import training_record


@pytest.mark.parametrize("n", [1, 4, 7])
def test_batches_have_one_size_and_give_every_row_once(n):
    x, sizes, told = np.arange(10.0), [], []

    def run(rows):
        sizes.append(rows.size)
        return {"double": jnp.asarray(2 * x[rows]), "row": rows}

    found = in_batches(run, n, 4, lambda done, total: told.append((done, total)))
    np.testing.assert_array_equal(found["double"], 2 * x[:n])
    np.testing.assert_array_equal(found["row"], np.arange(n))
    assert set(sizes) == {4} and told[-1] == (n, n)


def test_factors_make_uncertainties_right():
    rng = np.random.default_rng(0)
    std = rng.uniform(0.5, 2.0, 20_000)
    difference = 3.0 * std * rng.normal(size=std.size)
    assert rms_factor(difference, std) == pytest.approx(3.0, rel=0.02)
    assert quantile_factor(difference, std, np.zeros_like(std)) == pytest.approx(3.0, rel=0.03)
    # the part that is known is none of the network's
    noisy = difference + std * rng.normal(size=std.size)
    assert quantile_factor(noisy, std, std) == pytest.approx(3.0, rel=0.05)
    assert quantile_factor(0.01 * difference, std, std) == 0.2
    assert quantile_factor(difference[:29], std[:29], std[:29]) == 1.0
    found = coverage(difference, 3.0 * std, np.zeros_like(std))
    np.testing.assert_allclose(found, [0.683, 0.954], atol=0.01)
    assert robust_scatter(difference / std) == pytest.approx(3.0, rel=0.03)


def test_distance_is_in_standard_deviations():
    rng = np.random.default_rng(1)
    covariance = np.array([[4.0, 1.0], [1.0, 2.0]])
    x = rng.multivariate_normal([3.0, -1.0], covariance, 5000)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    distance = mahalanobis(x, np.array([3.0, -1.0]), whiten)
    assert np.mean(distance**2) == pytest.approx(2.0, rel=0.05)
    one = mahalanobis(jnp.asarray(x[0]), jnp.array([3.0, -1.0]), jnp.asarray(whiten))
    assert float(one) == pytest.approx(distance[0], rel=1e-5)


@dataclasses.dataclass(frozen=True)
class Settings:
    fit: FitSettings
    covariance: object = None


def test_members_and_their_records():
    fitting = FitSettings(
        optimizer="adam", learning_rates=(1e-2,), batch_size=8, epochs=2, patience=5
    )
    x = jnp.linspace(-1.0, 1.0, 32)
    keys = list(jax.random.split(jax.random.key(0), 2))
    traced = []

    def loss(w, batch, key):
        traced.append(None)
        return jnp.mean((w * batch) ** 2)

    members, histories = fit_ensemble(
        keys[:1], jax.random.normal, loss, x, settings=fitting, validation=x, progress=False
    )
    once = len(traced)
    members, histories = fit_ensemble(
        keys, jax.random.normal, loss, x, settings=fitting, validation=x, progress=False
    )
    assert len(traced) == once  # compiled code is shared
    assert members[0] != members[1] and all(isinstance(h, History) for h in histories)
    words = jax.random.key_data(keys[0])
    record = training_record(words, Settings(fitting, np.eye(2)), histories[0])
    assert record.settings["covariance"] == [[1.0, 0.0], [0.0, 1.0]]
    assert record.settings["fit"]["epochs"] == 2 and record.samples_trained_on == 64
    assert record.to_dict("rms")["rms"] == record.best_loss == histories[0].best_loss
    assert "best_loss" not in record.to_dict("rms")
    assert hash(record) == hash(dataclasses.replace(record, settings={}))


class Bits(IntFlag):
    DARK = 1
    FAR = 4


def test_flags_in_words():
    texts = {Bits.DARK: "dark", Bits.FAR: "far"}
    assert [flag_text(flag, texts) for flag in (0, 1, 5, 2)] == ["", "dark", "dark; far", ""]
    assert flag_counts([4, 5, 0], texts) == [("far", 2), ("dark", 1)]
