"""Files that an earlier version wrote are read, and give the numbers that they gave."""

import json
import zipfile

import numpy as np
import pytest
from make_old_files import ARCHIVE, COMPONENTS, PREDICTIONS, predictions

import jaxsed
from jaxsed.io import components, files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files, unpacked."""
    where = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(where)
    return where


def is_within(part, whole):
    """Whether a dictionary has all that another has, at any depth."""
    if isinstance(part, dict):
        return all(key in whole and is_within(part[key], whole[key]) for key in part)
    return part == whole


@pytest.mark.parametrize("name", PREDICTIONS)
def test_old_files_give_the_same_numbers(folder, name):
    expected = json.loads((folder / "predictions.json").read_text())[name]
    found = predictions(folder / f"{name}.h5")
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=5e-5, atol=1e-6)


@pytest.mark.parametrize("name", COMPONENTS)
def test_old_files_are_written_again_as_they_were(folder, tmp_path, name):
    """With no more than what later versions say besides."""
    path = folder / f"{name}.h5"
    jaxsed.load(path).save(tmp_path / "again.h5")
    kind = files.kind(path)
    before, after = files.read(path, kind), files.read(tmp_path / "again.h5", kind)
    assert is_within(before[1], after[1])
    assert after[0].keys() == before[0].keys()
    for key, values in before[0].items():
        np.testing.assert_allclose(after[0][key], values, rtol=1e-6, err_msg=key)
        assert after[0][key].dtype == values.dtype, key


def test_there_is_a_file_of_each_kind(folder):
    kinds = {files.kind(folder / f"{name}.h5") for name in COMPONENTS}
    of_package = (cls for cls in components.KINDS.values() if cls.__module__.startswith("jaxsed."))
    assert kinds == {cls.KIND for cls in of_package}
