"""`jaxsed halos`."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
from astropy.table import Table
from halo_data import EDGES, universe

from jaxsed import cli
from jaxsed import halos as ha
from jaxsed.halos import forest


@pytest.fixture(scope="module")
def seen():
    return universe(200)


@pytest.fixture(scope="module")
def unseen():
    return universe(60, seed=1)


def test_from_the_command_line(seen, unseen, tmp_path, capsys):
    data, fresh = tmp_path / "seen.h5", tmp_path / "unseen.h5"
    ha.write_halos(data, seen)
    ha.write_halos(fresh, dataclasses.replace(unseen, stellar_mass=None))
    out, table = tmp_path / "m.h5", tmp_path / "out.ecsv"
    bins = ["--bins", "9.5", "11", "3"]
    cli.app(
        ["halos", "train", str(data), "-o", str(out), "--network", "forest", *bins],
        standalone_mode=False,
    )
    cli.app(["halos", "predict", str(out), str(fresh), "-t", str(table)], standalone_mode=False)
    found = Table.read(table)
    assert len(found) == len(unseen)
    assert {"box", "count_9.5_10", "count_9.5_10_std", "phi_10.5_11", "phi_10.5_11_std"} <= set(
        found.colnames
    )
    truth = ha.galaxy_counts(unseen, EDGES)
    assert np.corrcoef(found["count_10_10.5"], truth[:, 1])[0, 1] > 0.5
    assert "without a flag" in capsys.readouterr().out


@pytest.mark.slow
def test_a_network_from_the_command_line(seen, tmp_path):
    data, out, table = tmp_path / "seen.h5", tmp_path / "m.h5", tmp_path / "out.fits"
    ha.write_halos(data, seen.take(np.arange(50)))
    cli.app(
        ["halos", "train", str(data), "-o", str(out), "--channels", "2", "--epochs", "1", "-q",
         "--bins", "9.5", "11", "3"],
        standalone_mode=False,
    )  # fmt: skip
    cli.app(["halos", "predict", str(out), str(data), "-t", str(table), "-q"],
            standalone_mode=False)  # fmt: skip
    assert len(Table.read(table)) == 50
    assert list(tmp_path.glob("*.checkpoint*")) == []


def test_a_forest_and_boxes_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(forest, "GRID", {"min_samples_leaf": [4]})
    data = tmp_path / "seen.h5"
    ha.write_halos(data, universe(20))
    cli.app(["halos", "forest", str(data), "-o", str(tmp_path / "f")], standalone_mode=False)
    figures = json.loads((tmp_path / "f" / "forest.json").read_text())
    assert figures["r2"] > 0.7
    assert (tmp_path / "f" / "importances.png").stat().st_size > 1000
    csv = tmp_path / "h.csv"
    Table({"x": [1.0, 26.0], "y": [1.0, 2.0], "z": [3.0, 4.0], "v": [100.0, 200.0]}).write(csv)
    cli.app(
        ["halos", "read", str(csv), "-o", str(tmp_path / "r.h5"), "--size", "50", "--hubble", "0.7",
         *(word for c in ("x=x", "y=y", "z=z", "v_peak=v") for word in ("--column", c))],
        standalone_mode=False,
    )  # fmt: skip
    assert len(ha.read_halos(tmp_path / "r.h5")) == 8


def test_the_command_tells_what_is_wrong(seen, tmp_path, capsys):
    data = tmp_path / "seen.h5"
    ha.write_halos(data, seen)
    with h5py.File(data, "a") as file:
        file["stellar_mass"][3] = np.nan
    with pytest.raises(SystemExit):
        cli.main(["halos", "train", str(data), "-o", str(tmp_path / "m.h5")])
    assert "stellar_mass of halo 3 is nan" in capsys.readouterr().err
