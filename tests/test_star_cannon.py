"""The Cannon: its fit, and posteriors of labels."""

import jax
import numpy as np
import pytest
from star_data import quadratic, synthetic

from jaxsed import stars as st
from jaxsed.stars import cannon


def test_a_cannon_finds_its_own_coefficients_and_scatter():
    stars = quadratic(3000, scatter=0.02)
    found = st.fit_cannon(stars)
    np.testing.assert_allclose(found.scatter, 0.02, rtol=0.1)
    unseen = quadratic(50, seed=1, noise=1e-6)
    flux = jax.vmap(found)(found.theta(unseen.labels))
    assert float(np.abs(flux - unseen.flux).max()) < 0.01
    assert (np.asarray(st.fit_cannon(quadratic(3000)).scatter) < 0.002).all()


def test_the_likelihood_of_a_cannon_has_its_scatter():
    """Chi-square with the variances of the data and of the model; bad pixels do not count."""
    fitted = st.fit_cannon(quadratic(300, scatter=0.02))
    unseen = quadratic(2, seed=1)
    flux = unseen.flux.copy()
    flux[0, 3] = np.nan
    bad = st.spectra(unseen.wave, flux, unseen.error)
    problem = fitted.problem(bad)
    for row in range(2):
        theta = fitted.theta(unseen.labels[row])
        one = jax.tree.map(lambda a, row=row: a[row], problem.data)
        model = np.asarray(fitted(theta), float)
        variance = unseen.error[row].astype(float) ** 2 + np.asarray(fitted.scatter, float) ** 2
        chi2 = np.nansum((flux[row] - model) ** 2 / variance)
        assert float(np.sum(one.residuals(fitted(theta)) ** 2)) == pytest.approx(chi2, rel=1e-3)


@pytest.mark.slow
def test_posteriors_of_a_cannons_labels_are_calibrated():
    """Label posteriors by NUTS cover the truth, through the same Problem as galaxies."""
    from jaxsed import infer

    fitted = st.fit_cannon(quadratic(600))
    unseen = quadratic(24, seed=1)
    problem = fitted.problem(unseen)
    keys = jax.random.split(jax.random.key(0), len(unseen))
    samples = infer.sample(keys, problem, method="nuts", settings=infer.Settings(slots=24))
    assert samples.diagnostics.passes().all()
    draws = np.stack([samples.theta.teff, samples.theta.logg], axis=-1).reshape(24, -1, 2)
    pull = (draws.mean(axis=1) - unseen.labels) / draws.std(axis=1)
    # 48 standard normal numbers: their mean square has a standard deviation of 0.2.
    assert 0.4 < np.mean(pull**2) < 1.9


def test_a_cannon_needs_enough_stars(tmp_path):
    with pytest.raises(ValueError, match="expected at least 12"):
        st.fit_cannon(quadratic(10))
    fitted = st.fit_cannon(quadratic(50))
    fitted.save(tmp_path / "cannon.h5")
    again = cannon.Cannon.load(tmp_path / "cannon.h5")
    np.testing.assert_array_equal(again.coefficients, fitted.coefficients)
    with pytest.raises(ValueError, match="pixels"):
        again.problem(synthetic(2).take([0, 1]))
