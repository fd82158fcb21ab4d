"""The importer of published networks: agreement with numpy, and refusal of hostile files."""

import functools
import itertools
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed.bands.filters import load_filter
from jaxsed.core.constants import C_LIGHT, MAGGIES_10PC_PER_LSUN_HZ
from jaxsed.cosmology import PLANCK13, age
from jaxsed.emulators import read_speculator
from jaxsed.emulators.spectral.emulator import LN_MAGGIES_10PC
from jaxsed.emulators.spectral.published import BURST_BOX, NMF_BOX
from jaxsed.emulators.spectral.unpickle import read_arrays
from jaxsed.sps.models.galaxy import galaxy_model
from jaxsed.sps.models.registry import family
from jaxsed.sps.ssp.grid import load_ssp
from jaxsed.workflows.published import load_published_provabgs
from jaxsed.workflows.train_spectra import rest_frame_provabgs

# --- pickles, written by hand -------------------------------------------------------------------


def p_int(n):
    return b"J" + struct.pack("<i", n)


def p_text(text):
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def p_bytes(raw):
    return b"B" + struct.pack("<I", len(raw)) + raw


def p_global(module, name):
    return f"c{module}\n{name}\n".encode()


def p_tuple(*items):
    return b"(" + b"".join(items) + b"t"


def p_list(*items):
    return b"](" + b"".join(items) + b"e"


def p_call(function, *arguments):
    return function + p_tuple(*arguments) + b"R"


def p_dtype(code, order="<"):
    state = p_tuple(p_int(3), p_text(order), b"N", b"N", b"N", p_int(-1), p_int(-1), p_int(0))
    return p_call(p_global("numpy", "dtype"), p_text(code), b"\x89", b"\x88") + state + b"b"


def p_array(values, core="numpy.core", fortran=False, order="<"):
    values = np.asarray(values, np.dtype(np.asarray(values).dtype).newbyteorder(order))
    empty = p_call(
        p_global(f"{core}.multiarray", "_reconstruct"),
        p_global("numpy", "ndarray"), p_tuple(p_int(0)), p_bytes(b"b"),
    )  # fmt: skip
    raw = values.tobytes("F" if fortran else "C")
    state = p_tuple(
        p_int(1), p_tuple(*map(p_int, values.shape)), p_dtype(values.dtype.str[1:], order),
        b"\x88" if fortran else b"\x89", p_bytes(raw),
    )  # fmt: skip
    return empty + state + b"b"


def pickled(body, protocol=3):
    return b"\x80" + bytes([protocol]) + body + b"."


def network(seed=0, n_in=3, n_wave=40, low=3000.0, n_hidden=2):
    """Fields of a small Speculator network."""
    rng = np.random.default_rng(seed)
    sizes, n_pca = [n_in, *[16] * n_hidden, 5], 5
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return {
        "W": [draw(a, b) / 4 for a, b in itertools.pairwise(sizes)],
        "b": [draw(b) for b in sizes[1:]],
        "alphas": [draw(b) for b in sizes[1:-1]],
        "betas": [draw(b) for b in sizes[1:-1]],
        "parameters_shift": draw(n_in), "parameters_scale": np.abs(draw(n_in)) + 0.5,
        "pca_shift": draw(n_pca), "pca_scale": np.abs(draw(n_pca)) + 0.1,
        "log_spectrum_shift": draw(n_wave) - 10, "log_spectrum_scale": np.abs(draw(n_wave)) + 0.1,
        "pca_transform_matrix": draw(n_pca, n_wave),
        "n_parameters": n_in, "n_wavelengths": n_wave,
        "wavelengths": low + 10.0 * np.arange(n_wave),
    }  # fmt: skip


def forward(fields, theta, dtype=np.float64):
    """The published formula, as written in the paper and in the published code."""
    f = {
        k: [np.asarray(a, dtype) for a in v] if isinstance(v, list) else np.asarray(v, dtype)
        for k, v in fields.items()
    }
    x = (theta.astype(dtype) - f["parameters_shift"]) / f["parameters_scale"]
    for i in range(len(f["W"]) - 1):
        a = x @ f["W"][i] + f["b"][i]
        with np.errstate(over="ignore"):
            gate = 1.0 / (1.0 + np.exp(-f["alphas"][i] * a))
        x = (f["betas"][i] + (1.0 - f["betas"][i]) * gate) * a
    x = (x @ f["W"][-1] + f["b"][-1]) * f["pca_scale"] + f["pca_shift"]
    return x @ f["pca_transform_matrix"] * f["log_spectrum_scale"] + f["log_spectrum_shift"]


def pickle_of(fields, core="numpy.core", order="<", fortran=False):
    def item(value):
        if isinstance(value, list):
            return p_list(*map(item, value))
        if isinstance(value, int):
            return p_int(value)
        return p_array(value, core, fortran, order)

    n = len(fields["W"])
    rest = (p_int(5), p_list(p_int(16)), p_int(n), p_list(p_int(3)))
    return pickled(p_list(*map(item, fields.values()), *rest))


def npz_of(path, fields, **changes):
    flat = {k: v for k, v in fields.items() if not isinstance(v, list)}
    for key, stem in (("W", "W"), ("b", "b"), ("alphas", "alpha"), ("betas", "beta")):
        flat |= {f"{stem}{i}": v for i, v in enumerate(fields[key])}
    flat |= changes
    np.savez(path, **{k: v for k, v in flat.items() if v is not None})
    return path


def plain_fields(path):
    """Fields of a published network in a plain-array file."""
    with np.load(path, allow_pickle=False) as z:
        fields = {k: z[k] for k in z.files}
    for key, stem in (("W", "W"), ("b", "b"), ("alphas", "alpha"), ("betas", "beta")):
        fields[key] = [fields[f"{stem}{i}"] for i in range(20) if f"{stem}{i}" in fields]
    return fields


THETA = np.random.default_rng(3).normal(size=(50, 3))


RUN = jax.jit(lambda model, thetas: jax.vmap(model)(thetas))
"""Compiled once for models of one kind."""


def batch(emulator, thetas):
    return np.asarray(RUN(emulator, thetas))


# --- what it reads ------------------------------------------------------------------------------


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("fortran", [False, True])
def test_pickle_gives_the_published_formula(tmp_path, core, order, fortran):
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle_of(network(), core, order, fortran))
    emulator = read_speculator(path)
    expected = forward(network(), THETA)
    np.testing.assert_allclose(batch(emulator, THETA), expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(emulator.wave, network()["wavelengths"])
    assert emulator.parameter_names == ("parameter_1", "parameter_2", "parameter_3")


def test_pickle_and_plain_arrays_are_the_same_network(tmp_path):
    pickle_path = tmp_path / "net.pkl"
    pickle_path.write_bytes(pickle_of(network()))
    plain = npz_of(tmp_path / "net.npz", network())
    a, b = read_speculator(pickle_path), read_speculator(plain)
    assert jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), a.windows, b.windows))


def test_old_text_pickle_of_a_scalar_and_bytes(tmp_path):
    raw = p_call(p_global("_codecs", "encode"), p_text("\x00\x00\xc0?"), p_text("latin1"))
    path = tmp_path / "s.pkl"
    path.write_bytes(
        pickled(p_list(p_call(p_global("numpy.core.multiarray", "scalar"), p_dtype("f4"), raw)))
    )
    assert read_arrays(path) == [np.float32(1.5)]


def test_protocol_five_keeps_arrays_in_byte_arrays(tmp_path):
    raw = np.arange(6, dtype="<f8").tobytes()
    array = p_call(
        p_global("numpy._core.numeric", "_frombuffer"),
        b"\x96" + struct.pack("<Q", len(raw)) + raw,
        p_dtype("f8"), p_tuple(p_int(2), p_int(3)), p_text("F"),
    )  # fmt: skip
    path = tmp_path / "five.pkl"
    path.write_bytes(pickled(p_list(array), 5))
    np.testing.assert_array_equal(read_arrays(path)[0], np.arange(6.0).reshape(2, 3, order="F"))


def test_windows_are_joined_in_order_of_wavelength(tmp_path):
    blue, red = network(1, low=3000.0), network(2, low=3500.0)
    paths = [npz_of(tmp_path / "red.npz", red), npz_of(tmp_path / "blue.npz", blue)]
    emulator = read_speculator(paths)
    assert np.all(np.diff(emulator.wave) > 0)
    expected = np.concatenate([forward(blue, THETA), forward(red, THETA)], axis=1)
    np.testing.assert_allclose(batch(emulator, THETA), expected, rtol=2e-5, atol=2e-5)


def test_windows_that_do_not_belong_together_are_refused(tmp_path):
    a = npz_of(tmp_path / "a.npz", network(1, low=3000.0))
    overlapping = npz_of(tmp_path / "b.npz", network(2, low=3100.0))
    other_inputs = npz_of(tmp_path / "c.npz", network(2, n_in=4, low=3500.0))
    with pytest.raises(ValueError, match="overlap"):
        read_speculator([a, overlapping])
    with pytest.raises(ValueError, match="same inputs"):
        read_speculator([a, other_inputs])
    with pytest.raises(ValueError, match="empty list"):
        read_speculator([])


# --- what it refuses ----------------------------------------------------------------------------

MARK = "executed"


def touching(path):
    """Commands that would leave a file behind."""
    return f"echo x > {path}"


HOSTILE = {
    "os.system": lambda cmd: p_call(p_global("os", "system"), p_text(cmd)),
    "posix.system": lambda cmd: p_call(p_global("posix", "system"), p_text(cmd)),
    "subprocess.call": lambda cmd: p_call(p_global("subprocess", "call"), p_text(cmd)),
    "builtins.eval": lambda cmd: p_call(
        p_global("builtins", "eval"), p_text(f"__import__('os').system('{cmd}')")
    ),
    "builtins.exec": lambda cmd: p_call(p_global("builtins", "exec"), p_text(cmd)),
    "builtins.getattr": lambda cmd: p_call(
        p_global("builtins", "getattr"), p_global("numpy", "ndarray"), p_text("tofile")
    ),
    "numpy.load": lambda cmd: p_call(p_global("numpy", "load"), p_text("/etc/hosts")),
    "numpy.fromfile": lambda cmd: p_call(p_global("numpy", "fromfile"), p_text("/etc/hosts")),
    "numpy.testing._private.utils.runstring": lambda cmd: p_call(
        p_global("numpy.testing._private.utils", "runstring"), p_text(cmd), b"}"
    ),
    "numpy.core.multiarray.fromfile": lambda cmd: p_global("numpy.core.multiarray", "fromfile"),
    "numpy.f2py.diagnose.run": lambda cmd: p_call(p_global("numpy.f2py.diagnose", "run")),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("nested", [False, True])
def test_hostile_globals_are_refused_and_nothing_runs(tmp_path, name, nested):
    witness = tmp_path / MARK
    body = HOSTILE[name](touching(witness))
    if nested:  # as an argument of a call that is allowed, inside a list
        body = p_list(p_call(p_global("numpy", "dtype"), body, b"\x89", b"\x88"))
    path = tmp_path / "hostile.pkl"
    path.write_bytes(pickled(body))
    with pytest.raises(ValueError, match="refused") as caught:
        read_speculator(path)
    assert "hostile.pkl" in str(caught.value) and name in str(caught.value)
    assert not witness.exists()


def stack_global(module, name):
    return p_text(module) + p_text(name) + b"\x93"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (p_call(stack_global("os", "system"), p_text("true")), "os.system"),
        (b"Pxyz\n", "PERSID"),
        (p_text("x") + b"Q", "BINPERSID"),
        (b"\x82\x01", "EXT1"),
        (b"(ios\nsystem\n", "INST"),
        (b"(" + p_global("numpy", "ndarray") + b"o", "OBJ"),
        (p_global("numpy", "ndarray") + b")\x81", "NEWOBJ"),
        (b"N" + b"r\xff\xff\xff\xff", "memo index"),
        (p_dtype("O"), "dtype 'O'"),
        (p_call(p_global("numpy", "dtype"), p_list(p_text("f4")), b"\x89", b"\x88"), "dtype"),
        (p_dtype("V8"), "dtype 'V8'"),
        (p_global("numpy", "ndarray") + b"]" + b"b", "state for a function"),
        (p_call(p_global("_codecs", "encode"), p_text("x"), p_text("zip")), "encoding 'zip'"),
        (p_global("numpy", "dtype"), "a value of type"),
        (p_list(p_list(p_list(p_list(p_list(p_list()))))), "nested deeper"),
        # 300 times the same list of 300 times the same list
        (
            p_list(p_int(1))
            + b"q\x00"
            + p_list(b"h\x00" * 300)
            + b"q\x01"
            + p_list(b"h\x01" * 300),
            "more than 10000 values",
        ),
    ],
)
def test_whatever_arrays_do_not_need_is_refused(tmp_path, body, complaint):
    path = tmp_path / "odd.pkl"
    path.write_bytes(pickled(body, 4))
    with pytest.raises(ValueError, match="refused") as caught:
        read_speculator(path)
    assert "odd.pkl" in str(caught.value) and complaint in str(caught.value)


def test_object_array_is_refused(tmp_path):
    empty = p_call(
        p_global("numpy.core.multiarray", "_reconstruct"),
        p_global("numpy", "ndarray"), p_tuple(p_int(0)), p_bytes(b"b"),
    )  # fmt: skip
    state = p_tuple(p_int(1), p_tuple(p_int(1)), p_dtype("f4"), b"\x89", p_list(p_text("anything")))
    path = tmp_path / "objects.pkl"
    path.write_bytes(pickled(p_list(empty + state + b"b")))
    with pytest.raises(ValueError, match="raw bytes"):
        read_speculator(path)
    np.savez(tmp_path / "objects.npz", W0=np.array([{}, None], dtype=object))
    with pytest.raises(ValueError, match=r"objects\.npz.*plain arrays"):
        read_speculator(tmp_path / "objects.npz")


def test_a_shape_beyond_the_data_allocates_nothing(tmp_path):
    for shape in ((2**30, 2**30), (7,)):
        empty = p_call(
            p_global("numpy.core.multiarray", "_reconstruct"),
            p_global("numpy", "ndarray"), p_tuple(*map(p_int, shape)), p_bytes(b"b"),
        )  # fmt: skip
        state = p_tuple(
            p_int(1), p_tuple(*map(p_int, shape)), p_dtype("f4"), b"\x89", p_bytes(b"\0" * 16)
        )
        path = tmp_path / "huge.pkl"
        path.write_bytes(pickled(p_list(empty + state + b"b")))
        with pytest.raises(ValueError, match=r"huge\.pkl"):
            read_speculator(path)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_say_so(tmp_path, keep):
    whole = pickle_of(network())
    path = tmp_path / "cut.pkl"
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ValueError, match=r"cut\.pkl"):
        read_speculator(path)
    data = npz_of(tmp_path / "whole.npz", network()).read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=r"cut\.npz"):
        read_speculator(cut)


def test_foreign_files_say_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_speculator(tmp_path / "nowhere.npz")
    text = tmp_path / "notes.txt"
    text.write_text("Dear reader,\n")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        read_speculator(text)
    short = tmp_path / "short.pkl"
    short.write_bytes(pickled(p_list(p_int(1))))
    with pytest.raises(ValueError, match="pca_transform_matrix"):
        read_speculator(short)
    lacking = npz_of(tmp_path / "lacking.npz", network(), pca_scale=None)
    with pytest.raises(ValueError, match=r"lacking\.npz.*pca_scale"):
        read_speculator(lacking)
    crooked = npz_of(tmp_path / "crooked.npz", network(), pca_scale=np.ones(3))
    with pytest.raises(ValueError, match=r"crooked\.npz.*pca_scale"):
        read_speculator(crooked)
    backwards = npz_of(
        tmp_path / "backwards.npz", network(), wavelengths=network()["wavelengths"][::-1]
    )
    with pytest.raises(ValueError, match=r"backwards\.npz.*increasing"):
        read_speculator(backwards)


# --- the published networks ---------------------------------------------------------------------

SETS = {
    "provabgs nmf": ("provabgs/nmf*.npz", NMF_BOX),
    "provabgs burst": ("provabgs/fsps.burst*.npz", BURST_BOX),
    "prospector alpha": ("prospector_alpha/*.npz", None),
}


def published(shared_data, name):
    """Paths, and 200 thetas in the box, of a published set."""
    pattern, box = SETS[name]
    paths = sorted((shared_data / "emulators").glob(pattern))
    fields = plain_fields(paths[0])
    shift, scale = fields["parameters_shift"], fields["parameters_scale"]
    low, high = box or (shift - 1.7 * scale, shift + 1.7 * scale)
    u = np.random.default_rng(0).random((200, shift.size))
    return paths, np.asarray(low) + u * (np.asarray(high) - np.asarray(low))


# single precision itself, numpy's included, is off by up to 8e-6 in the last of them
BOUNDS = {"provabgs nmf": 1e-5, "provabgs burst": 1e-5, "prospector alpha": 2e-5}


@pytest.mark.parametrize("name", SETS)
def test_published_networks_agree_with_numpy(shared_data, name):
    paths, thetas = published(shared_data, name)
    emulator = read_speculator(paths)
    parts = sorted((plain_fields(p) for p in paths), key=lambda f: f["wavelengths_A"][0])
    expected = np.concatenate([forward(f, thetas) for f in parts], axis=1)
    error = np.abs(batch(emulator, thetas) - expected)
    assert np.max(error / np.maximum(np.abs(expected), 1.0)) < BOUNDS[name]
    lit = emulator.wave > 3600  # where |ln flux| is of order ten
    assert error[:, lit].max() < 5e-5


@pytest.mark.parametrize("name", SETS)
def test_published_networks_in_64_bit(shared_data, x64, name):
    paths, thetas = published(shared_data, name)
    parts = sorted((plain_fields(p) for p in paths), key=lambda f: f["wavelengths_A"][0])
    expected = np.concatenate([forward(f, thetas) for f in parts], axis=1)
    np.testing.assert_allclose(batch(read_speculator(paths), thetas), expected, rtol=0, atol=1e-10)


@functools.cache
def galaxy(shared_data):
    folder = shared_data / "emulators" / "provabgs"
    return load_published_provabgs(
        sorted(folder.glob("nmf*.npz")), sorted(folder.glob("fsps.burst*.npz"))
    )


@functools.cache
def drawn():
    """A hundred galaxies."""
    draw = family("provabgs").training_draw
    keys = jax.random.split(jax.random.key(0), 100)
    return jax.jit(jax.vmap(lambda key: draw(key, jnp.asarray(0.2))))(keys)


def thetas(n, **fixed):
    theta = jax.tree.map(lambda leaf: leaf[:n], drawn())
    return theta._replace(**{name: jnp.full(n, value) for name, value in fixed.items()})


def test_published_galaxy_is_the_sum_of_its_components(shared_data):
    model, theta = galaxy(shared_data), thetas(5)
    folder = shared_data / "emulators" / "provabgs"
    t_age = float(age(0.2, PLANCK13))
    bases = np.loadtxt(folder / "NMF_2basis_Z_components_nowgt_lin_Nc2.txt")[:, ::-1]
    time = np.loadtxt(folder / "sfh_t_int.txt")[::-1]
    light = np.asarray(RUN(model, theta))
    for i in range(5):
        one = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i], float), theta)
        t = np.empty(3)  # the published transformation, as in their code
        t[0] = 1.0 - one.beta[0]
        for k in (1, 2):
            t[k] = 1.0 - one.beta[k] / np.prod(t[:k])
        x = [*t, one.gamma1, one.gamma2, one.dust1, one.dust2, one.dust_index, t_age]
        # straight lines between the times, the first of them continued to zero
        k = np.clip(np.searchsorted(time, one.t_burst) - 1, 0, time.size - 2)
        share = (one.t_burst - time[k]) / (time[k + 1] - time[k])
        z = np.array([one.gamma1, one.gamma2]) @ (
            (1 - share) * bases[:, k] + share * bases[:, k + 1]
        )
        y = [np.log10(one.t_burst), np.log10(np.clip(z, 4.5e-5, 4.5e-2)), one.dust2, one.dust_index]
        smooth, burst = (
            np.concatenate([
                forward(f, np.array(v))
                for f in sorted(
                    (plain_fields(p) for p in folder.glob(pattern)),
                    key=lambda f: f["wavelengths_A"][0],
                )
            ])[-model.wave.size :]
            for pattern, v in (("nmf*.npz", x), ("fsps.burst*.npz", y))
        )  # fmt: skip
        expected = np.log((1 - one.f_burst) * np.exp(smooth) + one.f_burst * np.exp(burst))
        np.testing.assert_allclose(light[i], expected, atol=2e-4)


def test_order_of_the_published_histories(shared_data):
    """Of all 24 orders of beta, ours makes the published light follow our own physics best."""
    model = galaxy(shared_data)
    theta = thetas(100, f_burst=0.0, dust1=0.3, dust2=0.3, dust_index=-0.5)
    own = galaxy_model(
        family("provabgs").physics, "provabgs", load_ssp(), [load_filter("sdss_g0")],
        redshift_range=(0.0, 0.6),
    )  # fmt: skip
    ours = np.log(np.asarray(jax.jit(jax.vmap(own.spectrum))(theta)))
    # 4000 and 5500 Angstrom are inside the band
    nodes = [np.argmin(np.abs(np.asarray(own.stars.wave) - w)) for w in (4000.0, 5300.0)]
    pixels = [np.argmin(np.abs(model.wave - w)) for w in (4000.0, 5300.0)]
    scatter = {}
    for order in itertools.permutations(range(4)):
        published_light = np.asarray(
            RUN(model, theta._replace(beta=theta.beta[:, np.array(order)]))
        )
        scatter[order] = np.std(published_light[:, pixels] - ours[:, nodes], axis=0).max()
    assert min(scatter, key=scatter.get) == (0, 1, 2, 3), scatter


def test_published_birth_clouds_last_as_long_as_ours(shared_data):
    """What birth clouds take from the light: 10 Myr of them as published, not 100 Myr."""
    model = galaxy(shared_data)
    wave = np.array([2700.0, 3500.0, 4500.0])
    clear, dusty = (
        thetas(100, f_burst=0.0, dust1=depth, dust2=0.0, dust_index=0.0) for depth in (0.0, 1.0)
    )

    def faded(model):
        at = [np.argmin(np.abs(model.wave - w)) for w in wave]
        return np.asarray(RUN(model, dusty) - RUN(model, clear))[:, at] / np.log(10)

    published = faded(model)
    ssp = load_ssp()
    off = {
        age: np.median(faded(rest_frame_provabgs(ssp, birth_cloud_age=age)) - published, axis=0)
        for age in (0.01, 0.1)
    }
    # the SSPs differ as well: PEGASE here, MIST and MILES there
    assert np.abs(off[family("provabgs").clouds()]).max() < 0.03, off
    assert off[0.1][0] < -0.2 and off[0.1][1] < -0.1, off


def test_published_galaxy_range_and_gradients(shared_data):
    model = galaxy(shared_data)
    one = jax.tree.map(lambda leaf: leaf[0], thetas(1))
    assert bool(model.inside(one))
    assert not bool(model.inside(one._replace(dust2=jnp.asarray(3.5))))
    assert not bool(model.inside(one._replace(redshift=jnp.asarray(0.9))))
    # the weights are arguments: as constants of a program they take long to compile
    gradient = jax.jit(jax.grad(lambda theta, model: jnp.sum(model(theta))))
    for f_burst in (0.0, 0.3, 1.0):
        slopes = gradient(one._replace(f_burst=jnp.asarray(f_burst)), model)
        assert all(np.all(np.isfinite(leaf)) for leaf in slopes)
        assert float(slopes.f_burst) != 0.0
    older = one._replace(t_burst=jnp.asarray(12.0), redshift=jnp.asarray(0.5))
    run = jax.jit(lambda model, theta: model(theta))
    faded = run(model, older) - run(model, older._replace(f_burst=jnp.asarray(0.0)))
    np.testing.assert_allclose(faded, np.log1p(-float(one.f_burst)), atol=1e-4)


def test_resolution_of_the_published_galaxy(shared_data):
    model = galaxy(shared_data)
    fwhm = model.resolution.fwhm
    assert fwhm.shape == model.wave.shape
    assert np.all(fwhm[(model.wave > 3600) & (model.wave < 7400)] == 2.54)
    assert fwhm[(model.wave < 3600) | (model.wave > 7410)].min() >= 20


def test_unit_of_the_prospector_networks(shared_data):
    paths = sorted((shared_data / "emulators" / "prospector_alpha").glob("*.npz"))
    magnitudes = read_speculator(paths, unit=LN_MAGGIES_10PC)
    light = magnitudes.in_lsun_per_angstrom()
    theta = jnp.asarray(plain_fields(paths[0])["parameters_shift"])
    maggies = np.exp(np.asarray(magnitudes(theta), float))
    expected = maggies / MAGGIES_10PC_PER_LSUN_HZ * C_LIGHT / magnitudes.wave**2
    np.testing.assert_allclose(np.exp(np.asarray(light(theta), float)), expected, rtol=1e-4)
    assert light.in_lsun_per_angstrom() is light
    # a solar mass of a galaxy of some Gyr shines with 0.1 to 10 solar luminosities
    assert 0.05 < np.trapezoid(expected, light.wave) < 10
