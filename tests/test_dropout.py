"""A Lyman-break galaxy at redshift 5.2: found where the prior reaches it, flagged where not."""

import numpy as np
import pytest

from jaxsed.catalog.flags import Flag
from jaxsed.catalog.run import fit_catalog

# A draw of the PROVABGS prior at z = 5.2 by the direct physics, with 5 % noise and a sky of
# 29.5 mag: maggies and their errors.
BANDS = {
    "acs_wfc_f435w": (-1.508e-12, 1.585e-12),
    "acs_wfc_f606w": (3.313e-12, 1.593e-12),
    "acs_wfc_f814w": (4.429e-11, 2.769e-12),
    "wfc3_ir_f125w": (9.002e-11, 4.72e-12),
    "wfc3_ir_f160w": (1.039e-10, 5.462e-12),
    "jwst_f277w": (5.671e-10, 2.929e-11),
    "jwst_f356w": (8.45e-10, 4.174e-11),
    "jwst_f444w": (1.095e-09, 5.637e-11),
}
TEXT = """
[catalog]
id = "id"
redshift = "free"
PRIOR
flux_unit = "maggies"
[sampler]
method = "hmc"
fallback = []
retries = RETRIES
""" + "".join(f'[[band]]\nflux = "{b}"\nerror = "e_{b}"\nfilter = "{b}"\n' for b in BANDS)


def fitted(tmp_path, prior, retries):
    catalog, config = tmp_path / "cat.csv", tmp_path / "c.toml"
    header = ",".join(f"{b},e_{b}" for b in BANDS)
    values = ",".join(f"{flux:g},{error:g}" for flux, error in BANDS.values())
    catalog.write_text(f"id,{header}\n1,{values}\n")
    config.write_text(TEXT.replace("PRIOR", prior).replace("RETRIES", str(retries)))
    return fit_catalog(config, catalog, tmp_path / "r.h5", progress=False)


@pytest.mark.slow
def test_it_is_found_where_the_prior_reaches_it(tmp_path):
    results = fitted(tmp_path, "redshift_prior = [0.01, 8.0]", 4)
    low, middle, high = results.summary("redshift")[0]
    assert 4.7 < low < middle < high < 5.7
    wrong = Flag.REDSHIFT_EDGE | Flag.DUST_EMISSION | Flag.NOT_CONVERGED | Flag.POOR_FIT
    assert not results.flags[0] & wrong
    assert any("uniform from 0.01 to 8" in note for note in results.notes)


@pytest.mark.slow
def test_a_prior_that_ends_too_early_is_flagged(tmp_path):
    results = fitted(tmp_path, "", 0)
    assert results.flags[0] & (Flag.REDSHIFT_EDGE | Flag.POOR_FIT | Flag.NOT_CONVERGED)
    assert np.all(results.summary("redshift") < 4.0)
    assert any("uniform from 0.01 to 4, the default" in note for note in results.notes)
