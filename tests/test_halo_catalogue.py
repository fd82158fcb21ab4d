"""Catalogues of halos: their checks, files and tables."""

import h5py
import numpy as np
import pytest
from astropy.table import Table
from halo_data import EDGES, SIZE, universe

from jaxsed import halos as ha
from jaxsed.halos import catalogue


@pytest.fixture(scope="module")
def seen():
    return universe(200)


def test_galaxies_are_counted_and_divided_by_volume_and_width():
    found = ha.halos(
        [3, 3, 5], np.full((3, 3), 1.0), {"v_peak": [100.0, 200.0, 300.0]}, box_size=7.0,
        hubble=0.7, stellar_mass=[10**9.6, 0.0, 10**10.9],
    )  # fmt: skip
    counts = ha.galaxy_counts(found, EDGES)
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 0, 1]])
    assert found.volume == pytest.approx(1000.0)
    np.testing.assert_allclose(ha.mass_function(counts, EDGES, found.volume)[0], [2e-3, 0, 0])


def test_boxes_can_be_taken_in_any_order_and_twice(seen):
    some = seen.take([7, 2, 7])
    counts = ha.galaxy_counts(seen, EDGES)
    np.testing.assert_array_equal(ha.galaxy_counts(some, EDGES), counts[[7, 2, 7]])
    np.testing.assert_array_equal(some.ids, [7, 2, 7])


def test_a_cut_in_velocity_loses_halos_and_no_box(seen):
    cut = seen.above(1e9)
    assert len(cut) == len(seen)
    assert cut.box.size == 0


def arrays(n=4):
    generator = np.random.default_rng(0)
    return {
        "box": np.arange(n) % 2, "position": SIZE * generator.random((n, 3)),
        "features": {"v_peak": np.full(n, 200.0) + np.arange(n)}, "box_size": SIZE, "hubble": 0.7,
        "stellar_mass": np.full(n, 1e10),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"position": np.full((4, 3), 25.5)}, r"halo 0 is at x = 25.5 Mpc/h.*outside"),
        ({"position": np.full((4, 3), np.nan)}, "outside"),
        ({"position": np.zeros((3, 3))}, r"\[4 halos, 3\]"),
        ({"box": np.zeros(4)}, "integers"),
        ({"features": {"v_peak": [2.1, 2.2, 2.3, 2.4]}}, r"km/s, not logarithms.*10\*\*x"),
        ({"features": {"v_peak": [200, 0, 200, 200]}}, "halo 1 is 0 km/s"),
        ({"features": {"v_peak": [200, np.nan, 200, 200]}}, "halo 1 is nan"),
        ({"features": {"spin": np.ones(4)}}, "no feature v_peak"),
        ({"stellar_mass": [1e10, 1e10, np.nan, 1e10]}, "stellar_mass of halo 2 is nan"),
        ({"stellar_mass": [1e10, -1.0, 1e10, 1e10]}, "halo 1 is -1"),
        ({"stellar_mass": [10.0, 10.5, 9.0, 11.0]}, "not logarithms"),
        ({"hubble": 67.8}, "100 km/s/Mpc"),
        ({"box_size": 0.0}, "above zero"),
        ({"boxes": [0]}, "every box"),
    ],
)
def test_hostile_halos_are_refused(change, complaint):
    given = arrays() | change
    with pytest.raises(ValueError, match=complaint):
        ha.halos(given.pop("box"), given.pop("position"), given.pop("features"), **given)


def test_galaxies_on_an_edge_belong_to_the_bin_above():
    """Bins hold their lower edge and not their upper one; what is outside of all is not counted."""
    mass = [0.0, 3e8, 1e9, 1e10, 1e10, 1e10, 1e11, 1e11, 1e12]
    found = ha.halos(
        np.zeros(9, int), np.ones((9, 3)), {"v_peak": np.full(9, 200.0)}, box_size=7.0, hubble=0.7,
        stellar_mass=mass,
    )  # fmt: skip
    counts = ha.galaxy_counts(found, (9.0, 10.0, 11.0, 12.0))
    np.testing.assert_array_equal(counts, [[1, 3, 2]])
    phi = ha.mass_function([[2.0, 2.0]], (9.0, 9.5, 11.5), 1000.0)
    np.testing.assert_allclose(phi, [[4e-3, 1e-3]])


def test_the_usual_bins_are_those_of_the_paper():
    """14 bins of 0.1 dex from 10^10.2 to 10^11.6 Msun (Nadler & To 2018)."""
    np.testing.assert_allclose(ha.EDGES, 10.2 + 0.1 * np.arange(15), rtol=1e-12)


@pytest.mark.parametrize("side", [0, 1])
def test_positions_may_pass_the_side_of_their_box_by_rounding_alone(side):
    """A hundred-thousandth of the box, no more."""
    for beyond, refused in ((5e-6, False), (3e-5, True)):
        given = arrays()
        given["position"][0] = side * SIZE + (2 * side - 1) * beyond * SIZE
        if refused:
            with pytest.raises(ValueError, match="outside"):
                ha.halos(given.pop("box"), given.pop("position"), given.pop("features"), **given)
        else:
            found = ha.halos(
                given.pop("box"), given.pop("position"), given.pop("features"), **given
            )
            assert 0 <= found.position.min() and found.position.max() < SIZE


def test_a_periodic_box_goes_on_at_its_other_side():
    """A halo a little past a side is one a little behind the other."""
    xyz = np.array([[-1.0, 51.0, 50.0], [49.0, 1.0, 0.0], [149.0, -99.0, 24.0]])
    number, place = catalogue.cut(xyz, 50.0, 25.0)
    np.testing.assert_allclose(place, [[24.0, 1.0, 0.0], [24.0, 1.0, 0.0], [24.0, 1.0, 24.0]])
    np.testing.assert_array_equal(number, [4, 4, 4])
    # x counts for most, z for least
    corners = 30.0 * np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(catalogue.cut(corners, 50.0, 25.0)[0], [1, 2, 4, 7])


def test_a_cut_in_velocity_keeps_what_is_at_the_cut():
    given = arrays()
    found = ha.halos(given.pop("box"), given.pop("position"), given.pop("features"), **given)
    assert sorted(found.above(202.0).features["v_peak"].tolist()) == [202.0, 203.0]


def test_a_halo_on_the_far_side_is_in_the_box():
    given = arrays()
    given["position"][0] = SIZE
    found = ha.halos(given.pop("box"), given.pop("position"), given.pop("features"), **given)
    assert found.position.max() < SIZE


def test_files(seen, tmp_path):
    path = tmp_path / "halos.h5"
    ha.write_halos(path, seen)
    found = ha.read_halos(path)
    np.testing.assert_array_equal(found.box, seen.box)
    np.testing.assert_array_equal(found.features["spin"], seen.features["spin"])
    np.testing.assert_allclose(found.stellar_mass, seen.stellar_mass)
    with h5py.File(path, "a") as file:
        del file["v_peak"], file.attrs["hubble"]
    with pytest.raises(ValueError, match="no dataset v_peak"):
        ha.read_halos(path)
    with h5py.File(path, "a") as file:
        file["v_peak"] = seen.features["v_peak"]
    with pytest.raises(ValueError, match="no attribute hubble"):
        ha.read_halos(path)
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match="not a readable HDF5"):
        ha.read_halos(tmp_path / "text.h5")
    with pytest.raises(FileNotFoundError):
        ha.read_halos(tmp_path / "none.h5")


@pytest.mark.parametrize("kind", ["hlist", "fits", "csv"])
def test_tables_of_a_whole_simulation_are_cut(tmp_path, kind):
    generator = np.random.default_rng(0)
    xyz, v = 50 * generator.random((500, 3)), generator.uniform(50, 400, 500)
    path = tmp_path / f"halos.{kind}"
    if kind == "hlist":
        header = "scale(0) id(1) x(2) y(3) z(4) Vpeak(5)\nmore about it"
        rows = np.column_stack([np.ones(500), np.arange(500), xyz, v])
        np.savetxt(path, rows, header=header)
    else:
        Table([*xyz.T, v], names=["x", "y", "z", "Vpeak"]).write(path)
    columns = {"x": "x", "y": "y", "z": "z", "v_peak": "Vpeak"}
    found = ha.read_table(
        path, columns, size=50, box_size=25, hubble=0.7, v_peak_min=100, rows=64
    )
    assert len(found) == 8
    assert found.box.size == (v >= 100).sum()
    number, place = catalogue.cut(xyz, 50, 25)
    np.testing.assert_array_equal(
        np.bincount(found.box, minlength=8), np.bincount(number[v >= 100], minlength=8)
    )
    np.testing.assert_allclose((place + 25 * (xyz >= 25)), xyz, atol=1e-6)
    with pytest.raises(ValueError, match="no column Vmax; it has"):
        ha.read_table(path, columns | {"v_peak": "Vmax"}, size=50, box_size=25, hubble=0.7)
    with pytest.raises(ValueError, match="do not fill"):
        ha.read_table(path, columns, size=50, box_size=20, hubble=0.7)
