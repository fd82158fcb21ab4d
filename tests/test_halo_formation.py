"""Star formation of the galaxies of a box."""

import jax.numpy as jnp
import numpy as np
import pytest
from halo_data import EDGES, SIZE, universe

from jaxsed import halos as ha
from jaxsed.halos import formation


@pytest.fixture(scope="module")
def seen():
    return universe(250, forming=True)


def test_galaxies_are_counted_and_their_rates_are_means():
    mass = np.array([1e10, 2e10, 2e10, 2e10, 2e11, 1e8])
    found = ha.halos(
        np.zeros(6, int), np.ones((6, 3)), {"v_peak": np.full(6, 200.0)}, box_size=SIZE,
        hubble=0.7, stellar_mass=mass, sfr=[0.01, 1.0, 100.0, 0.0, 1.9, 5.0],
    )  # fmt: skip
    known = formation.formation(found, (9.9, 10.1, 11.0, 12.0))
    np.testing.assert_array_equal(known.quiescent, [[1, 1, 1]])
    np.testing.assert_array_equal(known.forming, [[0, 2, 0]])
    np.testing.assert_allclose(known.log_sfr, [[0, 1.0, 0]])
    np.testing.assert_array_equal(
        known.quiescent + known.forming, ha.galaxy_counts(found, (9.9, 10.1, 11.0, 12.0))
    )


def test_the_misfit_is_the_likelihood():
    """Differences between two predictions are those of scipy's laws."""
    from scipy.stats import binom, norm

    known = formation.Formation(*np.array([[3.0, 0.0], [5.0, 4.0], [0.3, -0.2]]))
    usual = formation.Typical(jnp.array([-0.5, 0.2]), jnp.array([0.1, 0.4]), jnp.asarray(0.4))
    told = [(np.array([0.3, -1.0]), np.array([0.2, 0.0])), (np.zeros(2), np.zeros(2))]

    def expected(logit, log_sfr):
        share = 1 / (1 + np.exp(-(np.asarray(usual.logit) + logit)))
        mean = np.asarray(usual.log_sfr) + log_sfr
        law = binom.logpmf(known.quiescent, known.quiescent + known.forming, share)
        law += norm.logpdf(known.log_sfr, mean, 0.4 / np.sqrt(known.forming))
        return -law.sum()

    found = [float(formation.misfit(*outputs, known, usual)) for outputs in told]
    truth = [expected(*outputs) for outputs in told]
    assert found[0] - found[1] == pytest.approx(truth[0] - truth[1], rel=1e-4)


def test_the_typical_is_that_of_all_galaxies(seen):
    known = formation.formation(seen, EDGES)
    usual = formation.typical(known)
    share = 1 / (1 + np.exp(-np.asarray(usual.logit)))
    n = known.quiescent.sum(axis=0) + known.forming.sum(axis=0)
    np.testing.assert_allclose(share, known.quiescent.sum(axis=0) / n, atol=0.005)
    forms = seen.sfr > 0
    inside = forms & (np.digitize(np.log10(seen.stellar_mass), EDGES) == 2)
    rates = np.log10(seen.sfr[inside])
    assert float(usual.log_sfr[1]) == pytest.approx(rates.mean(), abs=1e-3)
    assert float(usual.scatter) == pytest.approx(rates.std(), rel=0.15)


def test_rates_are_kept_and_checked(seen, tmp_path):
    ha.write_halos(tmp_path / "d.h5", seen.take([0, 1]))
    again = ha.read_halos(tmp_path / "d.h5")
    np.testing.assert_array_equal(again.sfr, seen.take([0, 1]).sfr)
    assert "sfr" not in again.features
    with pytest.raises(ValueError, match=r"sfr of halo 1 is -0.3.*Msun/yr"):
        ha.halos([0, 0], np.ones((2, 3)), {"v_peak": [99, 98]}, box_size=SIZE, hubble=0.7,
                 stellar_mass=[1e9, 1e9], sfr=[1.0, -0.3])  # fmt: skip
    with pytest.raises(ValueError, match="no sfr"):
        formation.formation(universe(2), EDGES)
