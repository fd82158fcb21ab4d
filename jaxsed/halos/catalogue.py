"""Halos of simulated boxes: what a catalogue holds, checked, and its HDF5 file."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxsed.core.types import Numbers
from jaxsed.io import files, hdf5
from jaxsed.io.limits import one_line
from jaxsed.io.tables import check_table

V_PEAK = "v_peak"
"""The feature that every catalogue has."""

V_PEAK_CUT = 0.0
"""km/s.  Nadler & To (2018) discard halos below 150, to be sure that they are resolved; a catalogue
whose halos are all resolved needs no cut."""

RESERVED = ("box", "position", "stellar_mass", "sfr", "boxes")
"""Datasets of a file that are no features."""

EDGE = 1e-5
"""Of the box size by which rounding may carry a halo past the end of its box."""

LARGEST_LOG = 20.0
"""Masses and velocities that are all below this are logarithms."""


@dataclasses.dataclass(frozen=True)
class Halos:
    """Halos of one or more boxes of one size, sorted by box."""

    box: np.ndarray
    """[halo] number of its box, from 0."""
    position: np.ndarray
    """[halo, 3] in Mpc/h, from 0 to the box size."""
    features: dict[str, np.ndarray]
    """[halo] by name; `V_PEAK` in km/s among them."""
    box_size: float
    """Mpc/h."""
    hubble: float
    """Hubble constant in 100 km/s/Mpc."""
    ids: np.ndarray
    """[box] what the file calls each box."""
    stellar_mass: np.ndarray | None = None
    """[halo] Msun; zero where a halo has no galaxy."""
    sfr: np.ndarray | None = None
    """[halo] star formation rate in Msun/yr."""

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.ids)

    @property
    def volume(self) -> float:
        """Of a box in Mpc^3."""
        return (self.box_size / self.hubble) ** 3

    def take(self, boxes: Any) -> Halos:
        """Some of the boxes, in the order given."""
        boxes = np.asarray(boxes)
        first = np.searchsorted(self.box, np.arange(len(self) + 1))
        rows = [np.arange(first[b], first[b + 1]) for b in boxes]
        chosen = np.concatenate(rows) if rows else np.zeros(0, int)
        number = np.repeat(np.arange(boxes.size), [r.size for r in rows])
        return dataclasses.replace(
            self._rows(chosen), box=number, ids=self.ids[boxes]
        )

    def above(self, v_peak: float) -> Halos:
        """Only halos whose peak velocity is at least this many km/s; no box is lost."""
        return self._rows(np.flatnonzero(self.features[V_PEAK] >= v_peak))

    def _rows(self, rows: np.ndarray) -> Halos:
        mass, sfr = (None if a is None else a[rows] for a in (self.stellar_mass, self.sfr))
        return dataclasses.replace(
            self, box=self.box[rows], position=self.position[rows], stellar_mass=mass, sfr=sfr,
            features={name: column[rows] for name, column in self.features.items()},
        )  # fmt: skip


def halos(
    box: Any,
    position: Numbers,
    features: Mapping[str, Any],
    *,
    box_size: float,
    hubble: float,
    stellar_mass: Any = None,
    sfr: Any = None,
    boxes: Any = None,
    source: str = "halos",
) -> Halos:
    """Check arrays and make `Halos` of them.

    Args:
        box: [halo] integers that name the box of each halo.
        position: [halo, 3] in Mpc/h, from 0 to the box size.
        features: [halo] by name, `v_peak` in km/s among them.
        box_size: Mpc/h.
        hubble: Hubble constant in 100 km/s/Mpc.
        stellar_mass: [halo] in Msun, zero where a halo has no galaxy.
        sfr: [halo] star formation rates in Msun/yr, zero where there is none.
        boxes: names of all boxes, where some may be empty; by default those of the halos.
        source: what messages call the arrays.

    Raises ValueError, with the row and the remedy, for shapes that do not fit, positions outside of
    the box, numbers that are not finite, peak velocities that are not positive, negative masses
    and rates, logarithms where velocities or masses are expected, and a Hubble constant in
    km/s/Mpc.
    """
    names = np.asarray(box)
    if names.ndim != 1 or not np.issubdtype(names.dtype, np.integer):
        raise ValueError(
            f"{source}: box must be integers [halo], got {names.dtype} of shape {names.shape}"
        )
    n = names.size
    place = np.array(position, float)
    if place.shape != (n, 3):
        raise ValueError(f"{source}: expected position [{n} halos, 3], got shape {place.shape}")
    if not (np.isfinite(box_size) and box_size > 0):
        raise ValueError(f"{source}: box_size is {box_size}: expected Mpc/h, above zero")
    if not 0.2 < hubble < 2.0:
        raise ValueError(
            f"{source}: hubble is {hubble}: expected the Hubble constant in 100 km/s/Mpc, as 0.678"
        )
    outside = ~((place >= -EDGE * box_size) & (place <= (1 + EDGE) * box_size))
    if outside.any():
        row, axis = np.argwhere(outside)[0]
        raise ValueError(
            f"{source}: halo {row} is at {'xyz'[axis]} = {place[row, axis]:g} Mpc/h, outside of "
            f"its box of {box_size:g}: positions count from the box's own corner (`cut` divides a "
            "larger box; kpc/h are to be divided by 1000)"
        )
    last = np.nextafter(np.float32(box_size), np.float32(0.0))
    place = np.clip(place.astype(np.float32), 0.0, last)
    columns = {str(name): _column(name, values, n, source) for name, values in features.items()}
    if V_PEAK not in columns:
        raise ValueError(f"{source}: no feature {V_PEAK}; it has {', '.join(columns) or 'none'}")
    _check_positive(V_PEAK, columns[V_PEAK], "km/s", source)
    mass = None if stellar_mass is None else _masses(stellar_mass, n, source)
    rate = None
    if sfr is not None:
        rate = _not_negative("sfr", sfr, n, "Msun/yr, 0 where no stars form", source)
    ids = np.unique(names) if boxes is None else np.asarray(boxes)
    if len(np.unique(ids)) != len(ids) or not np.isin(names, ids).all():
        raise ValueError(f"{source}: boxes must name every box of the halos once")
    order = np.argsort(ids, kind="stable")
    number = order[np.searchsorted(ids[order], names)] if n else np.zeros(0, int)
    rows = np.argsort(number, kind="stable")
    unsorted = Halos(number, place, columns, float(box_size), float(hubble), ids, mass, rate)
    return unsorted._rows(rows)


def _column(name: str, values: Numbers, n: int, source: str) -> np.ndarray:
    found = np.array(values, np.float32)
    if found.shape != (n,):
        raise ValueError(f"{source}: expected {name} [{n} halos], got shape {found.shape}")
    bad = np.flatnonzero(~np.isfinite(found))
    if bad.size:
        raise ValueError(
            f"{source}: {name} of halo {bad[0]} is {found[bad[0]]} ({bad.size} such halos): leave "
            "these halos out, or the feature"
        )
    return found


def _check_positive(name: str, values: np.ndarray, unit: str, source: str) -> None:
    low = np.flatnonzero(~(values > 0))
    if low.size:
        raise ValueError(
            f"{source}: {name} of halo {low[0]} is {values[low[0]]:g} {unit}: expected above zero"
        )
    if values.size and values.max() < LARGEST_LOG:
        raise ValueError(
            f"{source}: no {name} is above {values.max():.3g}: expected {unit}, not logarithms: "
            "give 10**x"
        )


def _masses(values: Numbers, n: int, source: str) -> np.ndarray:
    unit = "Msun, 0 where a halo has no galaxy"
    found = _not_negative("stellar_mass", values, n, unit, source)
    if found.size and 0 < found.max() < LARGEST_LOG:
        raise ValueError(
            f"{source}: no stellar_mass is above {found.max():.3g}: expected Msun, not logarithms "
            "or units of 1e10 Msun: give 10**x, or multiply"
        )
    return found


def _not_negative(name: str, values: Numbers, n: int, unit: str, source: str) -> np.ndarray:
    found = np.array(values, float)
    if found.shape != (n,):
        raise ValueError(f"{source}: expected {name} [{n} halos], got shape {found.shape}")
    bad = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if bad.size:
        raise ValueError(
            f"{source}: {name} of halo {bad[0]} is {found[bad[0]]} ({bad.size} such halos): "
            f"expected {unit}"
        )
    return found


def read_halos(path: str | Path) -> Halos:
    """Halos of an HDF5 file.

    Datasets: ``box`` (halo), ``position`` (halo, 3; Mpc/h), ``v_peak`` (km/s), for training
    ``stellar_mass`` (Msun) and where it is known ``sfr`` (Msun/yr); any other dataset with a number
    per halo is a feature.  Attributes: ``box_size`` (Mpc/h) and ``hubble``.  A dataset ``boxes``
    names all boxes where some are empty.

    Raises FileNotFoundError, and ValueError for a file that lacks something or whose arrays are not
    as `halos` wants them; the message names the file.
    """
    with hdf5.opened(path) as file:
        lacking = [name for name in ("box", "position", V_PEAK) if name not in file]
        if lacking:
            raise ValueError(
                f"{path}: no dataset {', '.join(lacking)}; it has {', '.join(file.names()[:40])}"
            )
        known = file.attribute_names()
        attributes = [name for name in ("box_size", "hubble") if name not in known]
        if attributes:
            raise ValueError(
                f"{path}: no attribute {', '.join(attributes)}: give box_size in Mpc/h and hubble "
                "in 100 km/s/Mpc"
            )
        box = file.array("box", kinds="iu", shape=(None,))
        position = file.array("position", shape=(box.size, 3))
        features = {
            name: file.array(name)
            for name in file.names()
            if name not in RESERVED and file.shape(name) == box.shape
        }
        optional = {
            name: file.array(name, kinds="iu" if name == "boxes" else hdf5.NUMBERS, shape=(None,))
            for name in ("stellar_mass", "sfr", "boxes") if name in file
        }  # fmt: skip
        size, hubble = (file.number_attribute(name) for name in ("box_size", "hubble"))
    return halos(
        box, position, features, source=str(path), box_size=size, hubble=hubble, **optional
    )


def write_halos(path: str | Path, found: Halos) -> None:
    """The HDF5 file that `read_halos` reads, written whole or not at all."""
    with files.creating(path) as file:
        file.attrs["box_size"], file.attrs["hubble"] = found.box_size, found.hubble
        file["box"], file["position"] = found.ids[found.box], found.position
        file["boxes"] = found.ids
        for name, column in found.features.items():
            file[name] = column
        for name in ("stellar_mass", "sfr"):
            if getattr(found, name) is not None:
                file[name] = getattr(found, name)


def cut(position: np.ndarray, size: float, box_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Divide a periodic box into smaller ones.

    Args:
        position: [halo, 3] in a box of `size`; beyond it, the box repeats.
        size: Mpc/h.
        box_size: of the smaller boxes in Mpc/h.

    Returns the number of each halo's box [halo] and its place in it [halo, 3].

    Raises ValueError unless a whole number of boxes fits.
    """
    count = round(size / box_size)
    if count < 1 or abs(count * box_size - size) > 1e-6 * size:
        raise ValueError(
            f"boxes of {box_size:g} Mpc/h do not fill one of {size:g}: choose a divisor of it"
        )
    wrapped = np.mod(np.asarray(position, float), size)
    ijk = np.minimum((wrapped / box_size).astype(int), count - 1)
    number = (ijk[:, 0] * count + ijk[:, 1]) * count + ijk[:, 2]
    return number, wrapped - ijk * box_size


def read_table(
    path: str | Path,
    columns: Mapping[str, str],
    *,
    size: float,
    box_size: float,
    hubble: float,
    v_peak_min: float = V_PEAK_CUT,
    rows: int = 1_000_000,
) -> Halos:
    """Halos of a table of one large periodic box, cut into smaller ones.

    Args:
        path: FITS, CSV, ECSV or other tables that astropy knows, or columns of numbers under a
            header that begins with ``#`` (hlist files of Rockstar and consistent-trees).
        columns: the table's column for each of x, y, z, v_peak, and by the names that they shall
            have, stellar_mass, sfr and features.
        size: of the whole box in Mpc/h.
        box_size: of the smaller boxes in Mpc/h.
        hubble: Hubble constant in 100 km/s/Mpc.
        v_peak_min: km/s; halos below it are left out as they are read.
        rows: of a text file that are in memory at once.

    Raises FileNotFoundError, and ValueError for a column that the table lacks and as `halos` does.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no file {path}")
    lacking = [name for name in ("x", "y", "z", V_PEAK) if name not in columns]
    if lacking:
        raise ValueError(f"no column is named for {', '.join(lacking)}: give {lacking[0]}=COLUMN")
    check_table(path)
    parts = []
    for part in _parts(path, columns, rows):
        kept = ~(part[V_PEAK] < v_peak_min)  # what is not a number is told of later
        parts.append({name: values[kept] for name, values in part.items()})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in columns}
    xyz = np.stack([joined.pop(axis) for axis in "xyz"], axis=1)
    number, place = cut(np.where(np.isfinite(xyz), xyz, 0.0), size, box_size)
    known = {name: joined.pop(name, None) for name in ("stellar_mass", "sfr")}
    place = np.where(np.isfinite(xyz), place, np.nan)
    return halos(
        number, place, joined, box_size=box_size, hubble=hubble, **known,
        boxes=np.arange(round(size / box_size) ** 3), source=str(path),
    )  # fmt: skip


def _parts(path: str | Path, columns: Mapping[str, str], rows: int) -> Iterator[dict[str, Any]]:
    """The named columns, of so many rows at a time."""
    with open(path, "rb") as file:
        text = file.read(1) == b"#"
    if not text or str(path).endswith((".ecsv", ".fits")):
        from astropy.table import Table

        try:
            table = Table.read(path)
        # astropy's readers raise nearly anything on a broken file
        except Exception as error:
            raise ValueError(
                f"{path}: not a table that astropy reads ({one_line(error)})"
            ) from error
        _check_columns(path, columns, table.colnames)
        with files.complete(path, "table of halos"):
            part = {name: np.asarray(table[column], float) for name, column in columns.items()}
        yield part
        return
    with open(path) as file:
        header = file.readline().lstrip("#").split()
        # consistent-trees numbers its columns: "scale(0) id(1) ..."
        known = [word.partition("(")[0] if word.endswith(")") else word for word in header]
        _check_columns(path, columns, known)
        places = [known.index(column) for column in columns.values()]
        numbers = (line for line in file if not line.startswith("#") and line.strip())
        while lines := list(itertools.islice(numbers, rows)):
            try:
                numbered = np.loadtxt(lines, usecols=places, ndmin=2)
            except (ValueError, IndexError) as error:
                raise ValueError(f"{path}: not columns of numbers ({error})") from error
            yield dict(zip(columns, numbered.T, strict=True))


def _check_columns(path: str | Path, columns: Mapping[str, str], known: list[str]) -> None:
    lacking = [column for column in columns.values() if column not in known]
    if lacking:
        raise ValueError(
            f"{path}: no column {', '.join(lacking)}; it has {', '.join(known[:40])}"
        )
