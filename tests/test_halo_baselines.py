"""What a network of halos must beat: are the baselines' numbers of galaxies right on average?"""

import dataclasses

import numpy as np
import pytest
from halo_data import SIZE

from jaxsed import halos as ha
from jaxsed.halos import baselines
from jaxsed.io import files

EDGES = (9.0, 9.5, 10.0, 10.5, 11.0, 11.5)
RATES = np.array([0.1, 0.3, 1.0, 2.0, 5.0])
"""Galaxies expected in a box, by bin."""


def rare(n, seed=0, halos=60, scatter=0.0):
    """Boxes whose galaxies sit in halos drawn at random: their numbers are Poisson, whatever the
    halos are; with a scatter, boxes differ besides in a way that no halo tells."""
    draw = np.random.default_rng(seed)
    box = np.repeat(np.arange(n), draw.poisson(halos, n))
    rate = np.append(RATES / halos, 0)
    rate[-1] = 1 - rate.sum()
    boost = draw.lognormal(-(scatter**2) / 2, scatter, n)[box]
    bin_of = draw.choice(rate.size, box.size, p=rate)
    kept = draw.random(box.size) < boost / 4 if scatter else np.ones(box.size, bool)
    mass = 10.0 ** (9.25 + 0.5 * bin_of) * ((bin_of < RATES.size) & kept)
    return ha.halos(
        box, SIZE * draw.random((box.size, 3)),
        {"v_peak": 100 * (1 + draw.exponential(size=box.size)), "spin": draw.normal(size=box.size)},
        box_size=SIZE, hubble=0.7, stellar_mass=mass, boxes=np.arange(n),
    )  # fmt: skip


@pytest.fixture(scope="module")
def seen():
    return rare(800)


@pytest.mark.parametrize("kind", ["mean", "ridge"])
def test_small_numbers_of_galaxies_are_right_on_average(seen, kind):
    """A number of Poisson's law is on average its rate: no transform of it may remain."""
    fitted = ha.fit_baseline(seen, kind, edges=EDGES)
    found = fitted.predict(rare(400, seed=1)).count.mean(axis=0)
    np.testing.assert_allclose(found, RATES, atol=0.01, rtol=0.06)
    # of the boxes of the training the mean is known without noise
    known = ha.galaxy_counts(seen, EDGES).mean(axis=0)
    np.testing.assert_allclose(fitted.predict(seen).count.mean(axis=0), known, rtol=0.015)


def test_numbers_that_scatter_more_than_poissons_are_right_on_average():
    """The variance that is added is that of the boxes, not the 1/4 of a Poisson number's root."""
    boxes = rare(800, scatter=0.8)
    known = ha.galaxy_counts(boxes, EDGES)
    assert known[:, -1].var() > 1.3 * known[:, -1].mean()
    fitted = ha.fit_baseline(boxes, "ridge", edges=EDGES)
    found = fitted.predict(boxes).count.mean(axis=0)
    np.testing.assert_allclose(found, known.mean(axis=0), rtol=0.02)


def test_the_mean_of_a_poisson_root_gives_back_its_rate():
    """By the sums over Poisson's law that scipy knows."""
    from scipy.stats import poisson

    n = np.arange(200)
    for rate in (0.0, 0.1, 0.5, 1.0, 5.0, 50.0):
        law, root = poisson.pmf(n, rate), np.sqrt(n + 0.375)
        mean = law @ root
        variance = law @ (root - mean) ** 2
        assert baselines.mean_of_roots(mean, variance) == pytest.approx(rate, abs=1e-10)
    assert (baselines.mean_of_roots(np.array([-1.0, 0.1]), 0.0) == 0).all()


@pytest.mark.parametrize("kind", baselines.KINDS)
def test_no_number_is_zero_for_certain(seen, kind):
    """Of galaxies heavier than any of the training few are expected, with an uncertainty."""
    fitted = ha.fit_baseline(seen.take(np.arange(100)), kind, edges=(*EDGES, 12.0))
    found = fitted.predict(seen.take([3, 4]))
    np.testing.assert_allclose(found.count[:, -1], 0.5 / 100)
    assert (found.count_std > 0.05).all()


def test_a_ridge_without_its_variance_is_refused(seen, tmp_path):
    """A file of before the numbers were right on average."""
    fitted = ha.fit_baseline(seen.take(np.arange(60)), "ridge", edges=EDGES)
    fitted.save(tmp_path / "b.h5")
    arrays, attributes = files.read(tmp_path / "b.h5", baselines.Baseline.KIND)
    again = baselines.Baseline.load(tmp_path / "b.h5")
    np.testing.assert_array_equal(again.root_variance, fitted.root_variance)
    del arrays["root_variance"]
    files.write(tmp_path / "b.h5", baselines.Baseline.KIND, arrays, attributes)
    with pytest.raises(ValueError, match="fit it again"):
        baselines.Baseline.load(tmp_path / "b.h5")
    blank = dataclasses.replace(fitted, weights=None, root_variance=None)
    blank.save(tmp_path / "b.h5")
    assert baselines.Baseline.load(tmp_path / "b.h5").root_variance is None
