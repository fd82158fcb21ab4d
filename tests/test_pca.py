"""Principal components in a stream are those of all the data at once."""

import numpy as np
import pytest

from jaxsed.emulators.training.pca import Moments, principal_components


def data(n=5000, width=30, offset=1e4):
    """Rows of rank 4 plus noise, far from the origin, where naive sums of squares lose digits."""
    rng = np.random.default_rng(0)
    low_rank = rng.normal(size=(n, 4)) * [10.0, 5.0, 2.0, 1.0] @ rng.normal(size=(4, width))
    return low_rank + 0.01 * rng.normal(size=(n, width)) + offset


def streamed(rows, sizes):
    moments = Moments.none(rows.shape[1])
    for part in np.split(rows, np.cumsum(sizes)):
        moments = moments.updated(part)
    return moments


@pytest.mark.parametrize("sizes", [[], [1], [7, 0, 993, 2000], [1000] * 4])
def test_moments_do_not_depend_on_the_batches(sizes):
    rows = data()
    moments = streamed(rows, sizes)
    assert moments.rows == len(rows)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T, bias=True), rtol=1e-9, atol=1e-7)


def test_components_are_the_singular_vectors():
    rows = data()
    parts = principal_components(streamed(rows, [1000] * 4), 6)
    centred = rows - rows.mean(0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(parts.sigma, s[:6] / np.sqrt(len(rows)), rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(parts.basis[:4] * vt[:4], axis=1)), 1.0, atol=1e-8)
    np.testing.assert_allclose(parts.basis @ parts.basis.T, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(parts.scores(centred).std(0), parts.sigma, rtol=1e-6)
    left = centred - parts.scores(centred) @ parts.basis
    np.testing.assert_allclose(parts.residual, np.sqrt(np.mean(left**2)), rtol=1e-4)
    assert 0.008 < parts.residual < 0.01  # the noise that is left


def test_components_of_some_columns():
    rows = data()
    moments = streamed(rows, [2500])
    some = principal_components(moments, 3, slice(5, 20))
    alone = principal_components(streamed(rows[:, 5:20], [2500]), 3)
    np.testing.assert_allclose(some.basis, alone.basis, atol=1e-9)


def test_bad_rows_and_sizes():
    moments = streamed(data(50), [])
    with pytest.raises(ValueError, match="30 columns"):
        moments.updated(np.ones((3, 29)))
    with pytest.raises(ValueError, match="not finite"):
        moments.updated(np.full((3, 30), np.nan))
    for n in (0, 31):
        with pytest.raises(ValueError, match="fewer components"):
            principal_components(moments, n)
    with pytest.raises(ValueError, match="fewer components"):
        principal_components(streamed(data(5), []), 5)
    with pytest.raises(ValueError, match="fewer components"):
        principal_components(Moments.none(30), 2)
