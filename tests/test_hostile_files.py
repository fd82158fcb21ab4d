"""Damaged and hostile files: each ends in one line that names the file, before memory is taken."""

import functools
import gzip
import io
import json
import os
import shutil
import struct
import time
import tracemalloc
import zipfile
import zlib
from importlib import resources
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from fake_engine import CONFIG, FakeEngine, write_inputs
from halo_data import settings, universe
from make_old_files import ARCHIVE
from star_data import LABELS, PIXELS, SMALL, synthetic
from test_speculator import (
    network,
    p_array,
    p_bytes,
    p_call,
    p_dtype,
    p_global,
    p_int,
    p_list,
    p_text,
    p_tuple,
    pickle_of,
    pickled,
)

from jaxsed import halos, stars
from jaxsed.catalog.config import load_config, parse_config
from jaxsed.catalog.results import load_results
from jaxsed.catalog.run import fit_catalog
from jaxsed.catalog.tables import read_table
from jaxsed.cli import main
from jaxsed.emulators import load_emulator, read_speculator
from jaxsed.emulators.spectral.unpickle import read_arrays
from jaxsed.halos import model as halo_model
from jaxsed.halos import networks as halo_networks
from jaxsed.halos.boxes import Features
from jaxsed.halos.support import Support
from jaxsed.infer import amortised
from jaxsed.io import files, hdf5, limits
from jaxsed.learn import checkpoints
from jaxsed.sps.spectra.readers import read_desi_coadd, read_redrock, read_sdss_spectrum
from jaxsed.sps.ssp import grid as ssp
from jaxsed.sps.ssp.grid import read_ssp
from jaxsed.sps.ssp.readers import read_bagpipes, read_dsps
from jaxsed.stars import cannon, networks
from jaxsed.stars.apogee import read_apogee
from jaxsed.stars.model import StarModel
from jaxsed.stars.record import Reach, Record, Scaling

MEMORY = 100e6  # bytes that a refusal may take; the files themselves are smaller
SECONDS = 20.0  # generous: machines are shared


def refused(read, path, *words):
    """The message of a reader that must refuse a file, soon and in one line."""
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(ValueError) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert Path(path).name in message, message
    assert "\n" not in message and len(message) < 800, message
    assert peak < MEMORY and time.monotonic() - start < SECONDS
    for word in words:
        assert word in message, message
    return message


# --- HDF5 files of every kind ---------------------------------------------------------------------


def shipped(name):
    def make(folder):
        path = folder / f"{name}.h5"
        with resources.as_file(resources.files("jaxsed.weights") / path.name) as source:
            return shutil.copy(source, path)

    return make


def small(name):
    """A component with small networks, of those that `make_old_files` wrote."""

    def make(folder):
        with zipfile.ZipFile(ARCHIVE) as archive:
            return archive.extract(f"{name}.h5", folder)

    return make


def dsps(folder):
    path = folder / "dsps.h5"
    with h5py.File(path, "w") as file:
        file["ssp_lgmet"], file["ssp_lg_age_gyr"] = [-3.0, -2.0, -1.5], [-2.0, 0.0, 1.0]
        file["ssp_wave"] = np.linspace(1000.0, 9000.0, 50)
        file["ssp_flux"] = np.ones((3, 3, 50))
    return path


def spectra(folder):
    stars.write_spectra(folder / "stars.h5", synthetic(20))
    return folder / "stars.h5"


def boxes(folder):
    halos.write_halos(folder / "halos.h5", universe(4))
    return folder / "halos.h5"


def results(folder):
    catalog, config = write_inputs(folder, 6)
    output = folder / "run.h5"
    fit_catalog(config, catalog, output, engine=FakeEngine(), progress=False)
    return output


LEAVES = {"weights": [jnp.ones((3, 4)), jnp.zeros(4)]}


def checkpoint(folder):
    checkpoints.save(folder / "training.h5", "run", LEAVES, {"epoch": 3, "best": 0.5}, [(1, 2.0)])
    return folder / "training.h5"


# kind: (how it is made, how it is read, a dataset of numbers in it)
KINDS = {
    "emulator": (small("photometric_emulator"), load_emulator, "arrays/layers/0/0"),
    "stitched emulator": (small("stitched_emulator"), load_emulator, "arrays/windows"),
    "spectrum emulator": (small("provabgs_spectrum"), load_emulator, "arrays/screen/curve"),
    "flow": (small("flow"), amortised.load, "arrays/flow/x_shift"),
    "SSP grid": (shipped("ssp_pegase2"), read_ssp, "log_age"),
    "DSPS grid": (dsps, read_dsps, "ssp_wave"),
    "star spectra": (spectra, stars.read_spectra, "flux"),
    "halo boxes": (boxes, halos.read_halos, "position"),
    "results": (results, load_results, "catalog/flux"),
    "checkpoint": (checkpoint, lambda p: checkpoints.load(p, "run", LEAVES), "weights/0"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole file of a kind, made once."""
    return functools.cache(lambda kind: Path(KINDS[kind][0](tmp_path_factory.mktemp("whole"))))


@pytest.fixture
def copied(whole, tmp_path):
    def copy(kind):
        return Path(shutil.copy(whole(kind), tmp_path / whole(kind).name))

    return copy


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read(whole, kind):
    KINDS[kind][1](whole(kind))


def declared_8_tb(file, name):
    old = file[name]
    shape = (10**12,) if old.ndim == 1 else (10**12, *old.shape[1:])
    del file[name]
    file.create_dataset(name, shape, "f8")


def many_chunks(file, name):
    del file[name]
    file.create_dataset(name, (10**7,), "f8", chunks=(1,))


def bomb(file, name):
    """6.4 GB in as many megabytes, each chunk packed a thousand times."""
    del file[name]
    chunk, count = 2**23, 100
    made = file.create_dataset(name, (count * chunk,), "f8", chunks=(chunk,), compression="gzip")
    packed = zlib.compress(bytes(8 * chunk), 1)
    for i in range(count):
        made.id.write_direct_chunk((i * chunk,), packed)


def huge_chunk(file, name):
    del file[name]
    file.create_dataset(name, (10,), "f8", maxshape=(None,), chunks=(5 * 10**8,))


def external_link(file, name):
    del file[name]
    file[name] = h5py.ExternalLink("/etc/hostname", "/data")


def soft_link(file, name):
    file.move(name, "elsewhere")
    file[name] = h5py.SoftLink("/elsewhere")


def link_to_itself(file, name):
    del file[name]
    file[name] = h5py.SoftLink(f"/{name}")


def external_storage(file, name):
    old = file[name][()]
    del file[name]
    file.create_dataset(name, old.shape, old.dtype, external=[("/etc/passwd", 0, old.nbytes)])


def virtual(file, name):
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape, "f8")
    layout[...] = h5py.VirtualSource("other.h5", "x", shape)
    file.create_virtual_dataset(name, layout)


def replaced(values, **options):
    def alter(file, name):
        del file[name]
        file.create_dataset(name, data=values, **options)

    return alter


def references(file, name):
    del file[name]
    file[name] = np.array([file.ref], dtype=h5py.ref_dtype)


def varying_lengths(file, name):
    del file[name]
    made = file.create_dataset(name, (2,), h5py.vlen_dtype(np.float64))
    made[0] = np.ones(3)


def missing(file, name):
    del file[name]


HOSTILE = {
    "8 TB declared": (declared_8_tb, "in a file of"),
    "6.4 GB in 6 MB": (bomb, "declared"),
    "ten million chunks": (many_chunks, "chunks"),
    "a chunk of 4 GB": (huge_chunk, "chunks"),
    "link to another file": (external_link, "link"),
    "link within the file": (soft_link, "link"),
    "link to itself": (link_to_itself, "link"),
    "content in another file": (external_storage, "another file"),
    "virtual": (virtual, "another file"),
    "records": (replaced(np.zeros(3, [("a", "f4"), ("b", "i4")])), "records"),
    "text": (replaced(["a", "b"], dtype=h5py.string_dtype()), "text"),
    "references": (references, "references"),
    "arrays of varying length": (varying_lengths, "objects"),
    "complex numbers": (replaced(np.zeros((3, 3), complex)), "complex"),
    "empty": (replaced(h5py.Empty("f4")), "empty"),
    "none": (missing, ""),
}


LARGE = ("8 TB declared", "ten million chunks", "6.4 GB in 6 MB", "a chunk of 4 GB")


@pytest.mark.parametrize("hostility", HOSTILE)
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_datasets(copied, kind, hostility):
    _, read, name = KINDS[kind]
    alter, word = HOSTILE[hostility]
    path = copied(kind)
    with h5py.File(path, "r+") as file:
        alter(file, name)
    message = refused(read, path)
    # where the shape is known it is looked at first
    shaped = hostility in ("empty", "complex numbers", "text", "records", *LARGE)
    assert word in message or (shaped and "shape" in message), message


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_shapes(copied, kind):
    _, read, name = KINDS[kind]
    path = copied(kind)
    with h5py.File(path, "r+") as file:
        wrong = np.ones((7, *file[name].shape), "f4")
        del file[name]
        file[name] = wrong
        reseal(file)
    refused(read, path)


def reseal(file):
    """Write the checksum that fits the content: it is no protection against intent."""
    if "sha256" in file.attrs:
        arrays = {}
        file["arrays"].visititems(
            lambda n, item: arrays.update({n: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
        texts = {n: item.asstr()[()] for n, item in file["attributes"].items()}
        file.attrs["sha256"] = files._checksum(file.attrs["kind"], arrays, texts)
    if "checksum" in file.attrs:
        file.attrs["checksum"] = ssp._checksum({n: item[()] for n, item in file.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_groups_in_a_circle(copied, kind):
    _, read, name = KINDS[kind]
    path = copied(kind)
    with h5py.File(path, "r+") as file:
        group = file[name].parent
        group["again"] = group
    try:
        read(path)
    except ValueError:
        refused(read, path)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_short_or_of_another_kind(copied, kind, tmp_path):
    _, read, _ = KINDS[kind]
    path = copied(kind)
    data = path.read_bytes()
    for length in (0, 7, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        refused(read, path)
    path.write_text("not HDF5")
    refused(read, path)
    path.unlink()
    path.mkdir()
    refused(read, path)
    path.rmdir()
    os.mkfifo(path)  # whoever opens one waits for its other end
    refused(read, path)


def test_one_text_that_thousands_of_entries_point_to(tmp_path):
    """2 MB that would take 10 GB as the texts of a dataset or an attribute."""
    path = tmp_path / "texts.h5"
    long, n = "x" * 2_000_000, 4000
    with h5py.File(path, "w") as file:
        one = file.create_dataset("one", (1,), h5py.string_dtype())
        one[0] = long
        many = file.create_dataset("many", (n,), h5py.string_dtype())
        many[:] = "y"
        places = [one.id.get_offset(), many.id.get_offset()]
        file.attrs["short"] = np.array(["ab"] * n, dtype=h5py.string_dtype())
    data = bytearray(path.read_bytes())
    reference = bytes(data[places[0] : places[0] + 16])
    data[places[1] : places[1] + 16 * n] = reference * n
    path.write_bytes(data)

    def texts(path):
        with hdf5.opened(path) as file:
            file.texts("many")

    def attribute(path):
        with hdf5.opened(path) as file:
            file.attribute("short")

    refused(texts, path, "many", "declared")
    refused(attribute, path, "short", "declared")
    with hdf5.opened(path) as file:
        assert file.texts("one")[0] == long


def test_real_data_are_read_however_large(tmp_path):
    """The limit is on what a file makes of itself, not on what it holds."""
    path = tmp_path / "real.h5"
    values = np.random.default_rng(0).normal(size=(64, 1000))
    with h5py.File(path, "w") as file:
        file.create_dataset("real", data=values, compression="gzip", chunks=(1, 1000))
        file.create_dataset("zeros", data=np.zeros(10**6), compression="gzip")
        file["names"] = [f"star {i}" for i in range(5000)]
        file.create_dataset("packed", data=["a", "bc"] * 500, chunks=(10,), compression="gzip",
                            dtype=h5py.string_dtype())  # fmt: skip
    with hdf5.opened(path) as file:
        np.testing.assert_array_equal(file.array("real"), values)
        np.testing.assert_array_equal(file.row("real", 5), values[5])
        assert file.array("zeros").sum() == 0
        assert file.texts("names")[-1] == "star 4999"
        assert list(file.texts("packed")[-2:]) == ["a", "bc"]
    assert limits.memory_limit(10**10) == limits.RATIO * 10**10


# --- flipped bytes --------------------------------------------------------------------------------


def component(folder):
    arrays = {"a": np.arange(40.0), "b/c": np.arange(1200, dtype=np.int32).reshape(3, 400)}
    files.write(folder / "small.h5", "toy", arrays, {"names": ["x", "y"], "n": 3})
    return folder / "small.h5"


def same(found, expected):
    arrays, attributes = expected
    return found[1] == attributes and found[0].keys() == arrays.keys() and all(
        np.array_equal(found[0][k], arrays[k]) and found[0][k].dtype == arrays[k].dtype
        for k in arrays
    )  # fmt: skip


def flips(folder, count, seed):
    path = component(folder)
    expected, data = files.read(path, "toy"), path.read_bytes()
    random = np.random.default_rng(seed)
    refusals = 0
    for _ in range(count):
        changed = bytearray(data)
        for at in random.integers(len(data), size=random.integers(1, 4)):
            changed[at] ^= 1 << random.integers(8)
        if random.random() < 0.2:
            changed = changed[: random.integers(len(data))]
        path.write_bytes(changed)
        try:
            found = files.read(path, "toy")
        except ValueError as problem:
            refusals += 1
            assert path.name in str(problem) and "\n" not in str(problem)
        else:
            assert same(found, expected)
    return refusals


def test_flipped_bytes_never_give_other_content(tmp_path):
    tracemalloc.start()
    try:
        assert flips(tmp_path, 200, 0) > 50
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_many_flipped_bytes_never_give_other_content(tmp_path):
    assert flips(tmp_path, 20_000, 1) > 1000


# --- JSON of components ---------------------------------------------------------------------------


def rewritten(path, name, change):
    with h5py.File(path, "r+") as file:
        text = change(file[f"attributes/{name}"].asstr()[()])
        del file[f"attributes/{name}"]
        file.create_dataset(f"attributes/{name}", data=text, dtype=h5py.string_dtype())
        reseal(file)


JSON = {
    "deep": lambda text: "[" * 100_000,
    "deep and whole": lambda text: "[" * 900 + "]" * 900,
    "not a number": lambda text: "NaN",
    "no JSON": lambda text: "{",
    "a number of 9,000 digits": lambda text: "9" * 9000,
    "nothing": lambda text: "null",
    "text": lambda text: '"text"',
    "a huge number": lambda text: "1e308",
    "negative": lambda text: "-1",
    "an empty list": lambda text: "[]",
}
ATTRIBUTES = [
    ("emulator", "sizes"), ("emulator", "cosmology"), ("emulator", "record"),
    ("emulator", "band_names"), ("emulator", "feature_names"), ("stitched emulator", "members"),
    ("spectrum emulator", "smooth"), ("spectrum emulator", "cosmology"), ("flow", "record"),
    ("flow", "orders"), ("flow", "layers"),
]  # fmt: skip


@pytest.mark.parametrize("hostility", JSON)
@pytest.mark.parametrize(("kind", "name"), ATTRIBUTES)
def test_odd_attributes(copied, kind, name, hostility):
    path = copied(kind)
    rewritten(path, name, JSON[hostility])
    refused(KINDS[kind][1], path)


def zeros(make):
    """A network whose weights are zero."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(make))


def star_network():
    """Untrained."""
    key = jax.random.key(0)
    member = zeros(lambda: networks.init(key, "bcnn", PIXELS, LABELS, architecture=SMALL))
    n, f = len(LABELS), SMALL.dense[1]
    return StarModel(
        members=(member,), laplace=None, calibration=jnp.ones(n), calibration_flux=jnp.ones(n),
        scaling=Scaling(jnp.zeros(PIXELS), jnp.zeros(n), jnp.ones(n)),
        reach=Reach(jnp.zeros(f), jnp.eye(f), jnp.ones(())),
        record=Record(
            "bcnn", LABELS, tuple(15000.0 + np.arange(PIXELS)), 10, (0.0,) * n, (1.0,) * n, 0
        ),
    )  # fmt: skip


def halo_network():
    """Untrained."""
    found = universe(6)
    features = Features.of(found)
    sizes = settings().architecture
    key = jax.random.key(0)
    member = zeros(lambda: halo_networks.init(key, len(features.names), 3, architecture=sizes))
    record = halo_model.Record(
        "resnet", (9.5, 10.0, 10.5, 11.0), features, 25.0, 0.7, 0.0, Support.of(found, features),
        256, 6, 0,
    )  # fmt: skip
    return halo_model.HaloModel((member,), jnp.zeros(3), jnp.ones(3), record)


@pytest.mark.parametrize(
    ("make", "read", "name", "change", "word"),
    [
        (star_network, StarModel.load, "architecture", {"dense": [900_000, 900_000]}, "weights"),
        (star_network, StarModel.load, "architecture", {"filters": [1] * 10**5}, "sizes"),
        (star_network, StarModel.load, "architecture", {"pool": 10**9}, "sizes"),
        (star_network, StarModel.load, "members", 10**9, "members"),
        (star_network, StarModel.load, "record", {"labels": ["teff"]}, "label"),
        (halo_network, halo_model.HaloModel.load, "architecture", {"voxels": 10**12}, "sizes"),
        (halo_network, halo_model.HaloModel.load, "architecture", {"voxels": 900_000}, ""),
        (halo_network, halo_model.HaloModel.load, "members", 0, "members"),
        (halo_network, halo_model.HaloModel.load, "record", {"slots": 10**12}, "sizes"),
        (halo_network, halo_model.HaloModel.load, "record", {"edges": [3.0, 2.0]}, "edges"),
    ],
)
def test_networks_are_not_made_larger_than_their_weights(tmp_path, make, read, name, change, word):
    """Sizes that a file declares take no memory before they are compared with its weights."""
    path = tmp_path / "network.h5"
    make().save(path)
    read(path)
    changed = lambda t: json.dumps(  # noqa: E731
        json.loads(t) | change if isinstance(change, dict) else change
    )
    rewritten(path, name, changed)
    refused(read, path, word)


def test_trees_that_point_elsewhere(tmp_path):
    path = tmp_path / "baseline.h5"
    halos.fit_baseline(universe(30), "forest", edges=(9.5, 10.5, 11.0)).save(path)
    whole = path.read_bytes()
    for name, value in (("left", 10**6), ("right", -3), ("feature", 10**6)):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            file[f"arrays/trees/{name}"][0, 0] = value
            reseal(file)
        refused(halos.Baseline.load, path, name)
    path.write_bytes(whole)
    rewritten(path, "depth", lambda t: "1000000000000")
    refused(halos.Baseline.load, path, "depth")


def test_a_cannon_of_other_shapes(tmp_path):
    path = tmp_path / "cannon.h5"
    cannon.fit_cannon(synthetic(120)).save(path)
    rewritten(path, "names", lambda t: json.dumps(["teff"]))
    refused(cannon.Cannon.load, path, "shape")


# --- FITS -----------------------------------------------------------------------------------------


def image(folder, shape=(2, 8575), name="image.fits"):
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(np.ones(shape, "f4")) for _ in range(3))]
    fits.HDUList(hdus).writeto(folder / name, overwrite=True)
    return folder / name


def header_says(path, **cards):
    """Overwrite cards of the first extension."""
    data = path.read_bytes()
    start = data.index(b"XTENSION")
    for name, value in cards.items():
        at = data.index(f"{name:8}=".encode(), start)
        data = data[: at + 10] + f"{value:>20}".encode() + data[at + 30 :]
    path.write_bytes(data)


FITS_READERS = [read_apogee, read_desi_coadd, read_redrock, read_sdss_spectrum, read_bagpipes]


@pytest.mark.parametrize("read", FITS_READERS)
def test_hostile_fits(tmp_path, read):
    path = image(tmp_path)
    header_says(path, NAXIS1=10**6, NAXIS2=10**6)
    refused(read, path, "declares")
    path = image(tmp_path)
    header_says(path, NAXIS1=-1)
    refused(read, path, "negative axis")
    path = image(tmp_path)
    header_says(path, NAXIS2=10**15, NAXIS1=0)
    refused(read, path)
    path = image(tmp_path)
    header_says(path, BITPIX=77)
    refused(read, path)
    data = image(tmp_path).read_bytes()
    for length in (0, 10, 3000, len(data) // 2):
        path.write_bytes(data[:length])
        refused(read, path)
    fits.PrimaryHDU().writeto(path, overwrite=True)
    refused(read, path)


def test_packed_zeros_are_no_spectrum(tmp_path):
    path = tmp_path / "bomb.fits"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(320):
            file.write(bytes(2**20))
    refused(read_apogee, path, "unpack")
    (tmp_path / "bomb.csv.gz").write_bytes(path.read_bytes())
    refused(read_table, tmp_path / "bomb.csv.gz", "unpack")


def test_apogee_images_of_different_shapes(tmp_path):
    path = tmp_path / "apStar.fits"
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.ones(8575)), fits.ImageHDU(np.ones(80))]
    fits.HDUList(hdus).writeto(path)
    refused(read_apogee, path, "8575", "80")


# --- tables ---------------------------------------------------------------------------------------


def test_hostile_tables(tmp_path):
    table = Table({"a": np.arange(20.0), "b": np.arange(20)})
    table.write(tmp_path / "t.fits")
    header_says(tmp_path / "t.fits", NAXIS2=10**12)
    refused(read_table, tmp_path / "t.fits", "declares")

    (tmp_path / "short.csv").write_text(",".join(f"c{i}" for i in range(30_000)) + "\n1" * 30_000)
    refused(read_table, tmp_path / "short.csv", "columns")

    xml = "<VOTABLE><RESOURCE><TABLE nrows='{}'><FIELD name='a' datatype='double'/><DATA>{}</DATA>"
    xml += "</TABLE></RESOURCE></VOTABLE>"
    (tmp_path / "rows.vot").write_text(xml.format(10**11, "<TABLEDATA></TABLEDATA>"))
    refused(read_table, tmp_path / "rows.vot", "declared")
    stream = "<BINARY><STREAM href='file:///etc/passwd'/></BINARY>"
    (tmp_path / "elsewhere.vot").write_text(xml.format(1, stream))
    refused(read_table, tmp_path / "elsewhere.vot", "elsewhere")

    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("t", (10**11,), [("a", "f8"), ("b", "f8")], chunks=(1000,))
    refused(read_table, tmp_path / "t.h5", "in a file of")

    parquet = tmp_path / "t.parquet"
    Table({"a": np.zeros(10**8, "i1")}).write(parquet, format="parquet")
    refused(read_table, parquet, "declared")

    columns = dict(zip(("x", "y", "z", "v_peak"), "abcd", strict=True))
    refused(
        lambda p: halos.read_table(p, columns, size=50, box_size=25, hubble=0.7),
        tmp_path / "t.fits",
    )


@pytest.mark.parametrize("suffix", [".fits", ".ecsv", ".csv", ".vot", ".h5", ".parquet"])
def test_ordinary_tables_are_read(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    table = Table({"a": np.random.default_rng(0).normal(size=500), "n": ["x", "yz"] * 250})
    options = {".csv": {"format": "ascii.csv"}, ".h5": {"path": "t"}, ".vot": {"format": "votable"}}
    table.write(path, **options.get(suffix, {}))
    np.testing.assert_allclose(np.asarray(read_table(path)["a"], float), table["a"], rtol=1e-6)


# --- configurations -------------------------------------------------------------------------------


def test_hostile_configurations(tmp_path):
    path = tmp_path / "config.toml"
    for content in (
        b"a = " + b"[" * 100_000,
        b"a = " + b"{a = " * 300 + b"1" + b"}" * 300,
        b"a." * 100_000 + b"a = 1",
        b"a = " + b"9" * 10_000,
        b"\xff\xfe[catalog]",
        b"[catalog]\nid = \"\xe9\"",
        b"#" * 10**6,
        b"\0",
    ):
        path.write_bytes(content)
        refused(load_config, path)
    os.unlink(path)
    os.mkfifo(path)
    refused(load_config, path)


def test_a_byte_order_mark_is_no_part_of_a_configuration(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf" + CONFIG.encode())
    assert load_config(path).checksum() == parse_config(CONFIG).checksum()


# --- pickles --------------------------------------------------------------------------------------


def colliding(n):
    """A dictionary whose keys have one hash."""
    numbers = ((k * (2**61 - 1)).to_bytes(12, "little") for k in range(1, n + 1))
    return b"}(" + b"".join(b"\x8a\x0c" + number + b"N" for number in numbers) + b"u"


def again(body, times):
    """A list that holds the same thing so many times, by the pickle's memo."""
    return p_list(body + b"q\x07", *[b"h\x07"] * (times - 1))


BIG = p_array(np.zeros(100_000))
HOSTILE_PICKLES = {
    "60,000 colliding keys": (colliding(60_000), "EMPTY_DICT"),
    "one key": (b"}" + p_text("a") + b"Ns", "EMPTY_DICT"),
    "a set": (b"\x8f(" + p_int(1) + b"\x90", "EMPTY_SET"),
    "more opcodes than a network has": (p_list(b"N" * 300_000), "opcodes"),
    "one array 5,000 times": (again(BIG, 5000), "bytes"),
    "one text made bytes 5,000 times": (
        p_list(
            p_text("x" * 100_000) + b"q\x0700",
            *[p_call(p_global("_codecs", "encode"), b"h\x07", p_text("latin1"))] * 5000,
        ),
        "bytes",
    ),
    "a shape beyond the data": (
        p_call(
            p_global("numpy.core.numeric", "_frombuffer"), p_bytes(bytes(8)), p_dtype("f8"),
            p_tuple(*[p_int(2**30)] * 3), p_text("C"),
        ),
        "bytes",
    ),
    "a shape below zero": (
        p_call(
            p_global("numpy.core.numeric", "_frombuffer"), p_bytes(bytes(8)), p_dtype("f8"),
            p_tuple(p_int(-1)), p_text("C"),
        ),
        "shape",
    ),
    "lists that are endless as text": (
        p_list(p_int(1)) + b"q\x00" + b"".join(
            b"0" + p_list(*[f"h{chr(k)}".encode("latin1")] * 10) + b"q" + bytes([k + 1])
            for k in range(12)
        ) + b"0" + p_call(p_global("numpy", "dtype"), b"h\x0c"),
        "dtype",
    ),
    "deep": (b"]" * 1 + b"".join(b"]" for _ in range(50_000)) + b"a" * 50_000, "nested"),
    "a large memo index": (b"]r" + struct.pack("<I", 2**31), "memo"),
}  # fmt: skip


@pytest.mark.parametrize("hostility", HOSTILE_PICKLES)
def test_hostile_pickles(tmp_path, hostility):
    body, word = HOSTILE_PICKLES[hostility]
    path = tmp_path / "hostile.pkl"
    path.write_bytes(pickled(body))
    refused(read_arrays, path, word)


def test_a_network_written_in_full_is_read(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle_of(network()))
    assert read_speculator(path).wave.size == 40


def test_an_archive_whose_arrays_declare_more_than_they_hold(tmp_path):
    path = tmp_path / "network.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("W0.npy", header.getvalue() + bytes(80))
    refused(read_speculator, path, "declared")


# --- the command line -----------------------------------------------------------------------------


def command(capsys, *arguments):
    """Standard error of a command that must fail."""
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in arguments])
    assert stopped.value.code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("jaxsed: "), lines
    return lines[0]


def hostile(path, kind):
    with h5py.File(path, "r+") as file:
        declared_8_tb(file, KINDS[kind][2])
    return path


def test_commands_tell_in_one_line(copied, capsys, tmp_path):
    out = tmp_path / "out"
    run = hostile(copied("results"), "results")
    for arguments in (["plot", run, "-o", out], ["cite", run]):
        assert "run.h5" in command(capsys, *arguments)
    emulator = hostile(copied("emulator"), "emulator")
    assert emulator.name in command(capsys, "validate", emulator, "-o", out)
    flow = hostile(copied("flow"), "flow")
    assert flow.name in command(capsys, "calibrate", flow, "-o", out)
    data = hostile(copied("star spectra"), "star spectra")
    assert data.name in command(capsys, "stars", "train", data, "-o", tmp_path / "m.h5")
    assert data.name in command(capsys, "stars", "predict", flow, data, "-t", tmp_path / "t.csv")
    found = hostile(copied("halo boxes"), "halo boxes")
    assert found.name in command(capsys, "halos", "train", found, "-o", tmp_path / "m.h5")
    assert found.name in command(capsys, "halos", "forest", found, "-o", out)
    picture = image(tmp_path)
    header_says(picture, NAXIS2=10**9)
    assert "image.fits" in command(capsys, "stars", "read", picture, "-o", tmp_path / "s.h5")
    columns = [word for pair in ("x=a", "y=b", "z=c", "v_peak=d") for word in ("--column", pair)]
    assert "image.fits" in command(
        capsys, "halos", "read", picture, "-o", tmp_path / "h.h5", *columns, "--size", 50,
        "--hubble", 0.7,
    )  # fmt: skip


def test_a_fit_with_hostile_files_tells_in_one_line(copied, capsys, tmp_path):
    catalog, config = write_inputs(tmp_path)
    output = tmp_path / "new.h5"

    def fit(text):
        config.write_text(text)
        return command(capsys, "fit", catalog, "-c", config, "-o", output, "-q")

    assert "config.toml" in fit("a = " + "[" * 100_000)
    grid = hostile(copied("SSP grid"), "SSP grid")
    assert grid.name in fit(CONFIG + f'[model]\nssp = "{grid}"\n')
    emulator = hostile(copied("emulator"), "emulator")
    assert emulator.name in fit(CONFIG + f'[model]\nemulator = "{emulator}"\n')
    flow = hostile(copied("flow"), "flow")
    sampler = f'[sampler]\nmethod = "auto"\nflow = "{flow}"\n'
    assert flow.name in fit(CONFIG.replace("[sampler]\n", sampler))
    assert not output.exists()
