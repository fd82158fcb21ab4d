"""`jaxsed stars` from the command line."""

import dataclasses

import h5py
import numpy as np
import pytest
from star_data import LABELS, synthetic
from typer.testing import CliRunner

from jaxsed import stars as st


@pytest.mark.parametrize("network", ["bcnn", "cannon"])
def test_train_and_predict_from_the_command_line(tmp_path, network):
    from jaxsed.cli import app

    data, path, table = (tmp_path / n for n in ("data.h5", "model.h5", "out.ecsv"))
    st.write_spectra(data, synthetic(160))
    run = CliRunner()
    done = run.invoke(
        app,
        ["stars", "train", str(data), "-o", str(path), "--network", network, "--epochs", "2"],
    )
    assert done.exit_code == 0, done.output
    done = run.invoke(app, ["stars", "predict", str(path), str(data), "--table", str(table)])
    assert done.exit_code == 0, done.output
    from astropy.table import Table

    found = Table.read(table)
    assert len(found) == 160
    for name in LABELS:
        for column in (name, f"{name}_std_model", f"{name}_std_predictive", f"{name}_std"):
            assert np.isfinite(found[column]).all()
    assert {"flag", "flag_text", "distance"} <= set(found.colnames)


def test_the_command_says_what_a_file_lacks(tmp_path):
    from jaxsed.core.errors import JaxsedError
    from jaxsed.workflows.stars import train_file

    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["flux"] = np.ones((2, 3))
    with pytest.raises(JaxsedError, match="no dataset flux_uncertainty, wave_A; it has flux"):
        train_file(tmp_path / "data.h5", tmp_path / "out.h5", "bcnn")
    with pytest.raises(JaxsedError, match="no file"):
        train_file(tmp_path / "none.h5", tmp_path / "out.h5", "bcnn")
    st.write_spectra(tmp_path / "ok.h5", dataclasses.replace(synthetic(60), windows={}))
    with pytest.raises(JaxsedError, match="no dataset windows"):
        train_file(tmp_path / "ok.h5", tmp_path / "out.h5", "censored")
