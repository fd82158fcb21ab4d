"""An output that cannot be written is told before the work, not after it."""

import numpy as np
import pytest

from jaxsed.core.errors import JaxsedError
from jaxsed.io.outputs import check_folder, check_writable
from jaxsed.workflows import halos, stars
from jaxsed.workflows.validate import validate_file


def test_files(tmp_path):
    check_writable(tmp_path / "new.h5")
    (tmp_path / "old.h5").write_text("")
    check_writable(tmp_path / "old.h5")
    with pytest.raises(JaxsedError, match="it is a folder"):
        check_writable(tmp_path)
    with pytest.raises(JaxsedError, match="there is no folder"):
        check_writable(tmp_path / "none" / "new.h5")


def test_folders(tmp_path):
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "newer")
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(JaxsedError, match="is not a folder"):
            check_folder(path)


@pytest.mark.parametrize(
    ("work", "output"),
    [
        (lambda data, out: stars.train_file(data, out, "bcnn"), "folder"),
        (lambda data, out: halos.train_file(data, out, "resnet"), "folder"),
        (lambda data, out: halos.forest_file(data, out), "file"),
        (lambda data, out: validate_file(data, out), "file"),
    ],
)
def test_long_work_looks_first(tmp_path, work, output):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(JaxsedError, match="cannot write"):
        work(tmp_path / "no such data.h5", tmp_path / output)


@pytest.mark.parametrize("script", ["make_emulators", "make_flows", "make_spectrum_provabgs"])
def test_scripts_of_weights_look_first(tmp_path, monkeypatch, script):
    import importlib
    import sys

    module = importlib.import_module(f"jaxsed.weights.{script}")
    chosen = [] if script == "make_spectrum_provabgs" else ["sdss"]
    monkeypatch.setattr(sys, "argv", [script, *chosen, "--output", str(tmp_path)])
    with pytest.raises(JaxsedError, match="it is a folder"):
        module.main()


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    from astropy.table import Table

    from jaxsed.io.outputs import save_table

    path = tmp_path / "t.ecsv"
    save_table(Table({"a": np.arange(3)}), path)
    assert Table.read(path)["a"].tolist() == [0, 1, 2]
    with pytest.raises(Exception, match="cannot represent|object"):
        save_table(Table({"a": [object(), object()]}), path)
    assert Table.read(path)["a"].tolist() == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["t.ecsv"]
