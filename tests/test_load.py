"""`jaxsed.load` opens every kind of file that the package writes."""

from importlib import resources
from pathlib import Path

import h5py
import pytest
from fake_engine import FakeEngine, write_inputs
from halo_data import EDGES, universe
from star_data import synthetic

import jaxsed
from jaxsed import halos, stars
from jaxsed.catalog.run import fit_catalog
from jaxsed.core.errors import JaxsedError

WEIGHTS = Path(str(resources.files("jaxsed.weights")))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("emulator_provabgs_sdss", "PhotometricEmulator"),
        ("spectrum_provabgs", "ProvabgsSpectrum"),
        ("flow_provabgs_sdss", "Amortised"),
        ("ssp_pegase2", "SSPGrid"),
    ],
)
def test_shipped_files(name, kind):
    assert type(jaxsed.load(WEIGHTS / f"{name}.h5")).__name__ == kind


def test_files_that_users_make(tmp_path):
    stars.fit_cannon(synthetic(60)).save(tmp_path / "cannon.h5")
    halos.fit_baseline(universe(20), "mean", edges=EDGES).save(tmp_path / "mean.h5")
    catalog, config = write_inputs(tmp_path)
    fit_catalog(config, catalog, tmp_path / "run.h5", engine=FakeEngine(), progress=False)
    for name, kind in (("cannon", "Cannon"), ("mean", "Baseline"), ("run", "Results")):
        assert type(jaxsed.load(tmp_path / f"{name}.h5")).__name__ == kind


def test_other_files_are_refused(tmp_path):
    with pytest.raises(JaxsedError, match="no result file"):
        jaxsed.load(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1.0]
    with pytest.raises(ValueError, match="other.h5: a file of another program; expected results"):
        jaxsed.load(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("x")
    with pytest.raises(ValueError, match=r"text\.h5"):
        jaxsed.load(tmp_path / "text.h5")
    with pytest.raises(ValueError, match="a 'filter curves' file"):
        jaxsed.load(WEIGHTS / "filters_goodss.h5")
