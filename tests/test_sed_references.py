"""Composite spectra against FSPS and DSPS, from the same simple populations."""

import jax
import numpy as np
import pytest
import reference_spectra


@pytest.fixture(scope="module")
def case():
    with jax.enable_x64(True):
        return reference_spectra.dsps_case()


@pytest.fixture
def fsps(shared_data, x64):
    if not (shared_data / reference_spectra.FSPS_FILE).is_file():
        pytest.skip(f"no {reference_spectra.FSPS_FILE} in {shared_data}")
    return reference_spectra.fsps(shared_data)


def test_composite_of_fsps(fsps):
    spectrum = fsps.spectrum
    assert spectrum.worst(2500.0, 9000.0, fsps.away_from_lines) < 3e-3
    assert abs(spectrum.median(2500.0, 9000.0)) < 3e-4
    # The emission lines of FSPS, which its simple populations lack, are weak at this age.
    assert spectrum.worst(2500.0, 9000.0) < 1e-2


def test_surviving_mass_of_fsps(fsps):
    np.testing.assert_allclose(fsps.surviving.ours, fsps.surviving.theirs, rtol=1e-5)


def test_dsps_from_the_same_weights(import_dsps, case, x64):
    stellar_sed = import_dsps("dsps.sed.stellar_sed")
    compared = reference_spectra.dsps_same_weights(
        stellar_sed.calc_rest_sed_sfh_table_lognormal_mdf, case
    )
    assert compared.worst(1000.0, 5e4) < 1e-5


def test_dsps_from_the_same_history(import_dsps, case, x64):
    """Two discretisations of one integral: a per cent apart on coarse nodes, and one limit.

    DSPS sums populations in bins around the nodes, jaxsed interpolates linearly between them; the
    metallicity of DSPS scatters as a triweight, ours as a Gaussian of the same width.
    """
    weights = import_dsps("dsps.sed.ssp_weights").calc_ssp_weights_sfh_table_lognormal_mdf

    def worst(scatter, refine, triweight=False):
        compared = reference_spectra.dsps_history(weights, case, scatter, refine, triweight)
        return compared.worst(1000.0, 5e4)

    coarse = worst(0.2, 1)
    assert coarse < 2e-2
    assert worst(0.2, 4) < coarse / 4
    assert worst(0.2, 16) < 1.5e-3  # what is left is the shape of the scatter:
    assert worst(0.2, 16, triweight=True) < 1e-4
    assert worst(0.02, 16) < 1e-4
