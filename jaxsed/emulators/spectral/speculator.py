"""Importer of published Speculator networks (Alsing et al. 2020), such as those of PROVABGS.

    x_0 = (theta - shift) / scale
    x_i = [beta_i + (1 - beta_i) sigmoid(alpha_i a_i)] a_i,   a_i = x_{i-1} W_i + b_i   (eq. 8)
    ln f = [(x_n pca_scale + pca_shift) P] log_spectrum_scale + log_spectrum_shift

The file is what Speculator's `save` pickles, a list in the order of `FIELDS`, or an .npz of plain
arrays named as there, with the layers numbered: W0, b0, alpha0, beta0, W1, ...
"""

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsed.emulators.spectral.emulator import (
    LN_LSUN_PER_ANGSTROM,
    SpectralWindow,
    SpectrumEmulator,
    spectral_window,
)
from jaxsed.emulators.spectral.unpickle import MAX_BYTES, read_arrays
from jaxsed.io import files
from jaxsed.io.limits import one_line, regular_file
from jaxsed.rest_frame.spectrum import Resolution, nodes_resolution

FIELDS = (
    "W", "b", "alphas", "betas", "parameters_shift", "parameters_scale", "pca_shift", "pca_scale",
    "log_spectrum_shift", "log_spectrum_scale", "pca_transform_matrix", "n_parameters",
    "n_wavelengths", "wavelengths", "n_pcas", "n_hidden", "n_layers", "architecture",
)  # fmt: skip
"""Entries of a pickled Speculator network, in order; those after the wavelengths are not needed."""

_NEEDED = 14
_ZIP = b"PK\x03\x04"
_MOST_MEMBERS = 10_000


def read_speculator(
    path: str | Path | Sequence[str | Path],
    *,
    parameter_names: Sequence[str] | None = None,
    box: tuple[Any, Any] | None = None,
    resolution: Resolution | None = None,
    unit: str = LN_LSUN_PER_ANGSTROM,
) -> SpectrumEmulator:
    """A published Speculator network as a `SpectrumEmulator`.

    Args:
        path: a file, pickled or .npz, or several: the wavelength windows of one emulator, in any
            order.
        parameter_names: of the inputs, as `jaxsed.params.features` understands them if the
            emulator is to be called on a NamedTuple; default: parameter_1, parameter_2, ...
        box: lowest and highest value of every input in training, which the files do not hold;
            default: unknown, so everything counts as inside.
        resolution: of the spectra; default: two steps of the wavelength grid.
        unit: of the output; see `jaxsed.emulators.spectral.emulator`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no such network, that asks to run code, or whose arrays do not
            fit each other; windows that overlap or differ in their inputs. The message names the
            file.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    if not paths:
        raise ValueError("expected one file or more, got an empty list")
    parts = [_read_window(Path(p)) for p in paths]
    parts.sort(key=lambda part: part[1][0])
    windows, waves, widths = zip(*parts, strict=True)
    if len(set(widths)) != 1:
        raise ValueError(f"{_names(paths)}: expected windows with the same inputs, got {widths}")
    wave = np.concatenate(waves)
    if np.any(np.diff(wave) <= 0):
        raise ValueError(f"{_names(paths)}: the wavelength windows overlap: give each once")
    names = parameter_names or [f"parameter_{k + 1}" for k in range(widths[0])]
    return SpectrumEmulator.create(
        windows,
        wave,
        names,
        box=box,
        resolution=resolution or nodes_resolution(wave),
        unit=unit,
    )


def _names(paths: Sequence[str | Path]) -> str:
    return ", ".join(str(path) for path in paths)


def _read_window(path: Path) -> tuple[SpectralWindow, np.ndarray, int]:
    """A window, its wavelengths and its number of inputs."""
    regular_file(path)
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    fields = _from_npz(path) if start == _ZIP else _from_pickle(path)
    with files.complete(path, "Speculator network"):
        return _window(fields)


def _from_pickle(path: Path) -> dict[str, Any]:
    content = read_arrays(path)
    if not isinstance(content, list) or len(content) < _NEEDED:
        raise ValueError(
            f"{path}: expected a pickled list of {len(FIELDS)} entries ({', '.join(FIELDS)}), "
            f"got {f'{len(content)} entries' if isinstance(content, list) else 'something else'}"
        )
    return dict(zip(FIELDS, content, strict=False))


def _from_npz(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > _MOST_MEMBERS:
                raise ValueError(f"more than {_MOST_MEMBERS} arrays")
            size = sum(_declared(archive, member) for member in archive.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"{size} bytes unpacked, which is no emulator")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        for name, values in arrays.items():
            if not isinstance(values, np.ndarray) or values.dtype.kind not in "biufU":
                raise ValueError(f"{name} is no array of numbers")
    # a damaged archive raises almost anything
    except Exception as problem:
        raise ValueError(
            f"{path}: not a readable .npz of plain arrays ({one_line(problem)})"
        ) from problem
    fields: dict[str, Any] = dict(arrays)
    fields["wavelengths"] = arrays.get("wavelengths", arrays.get("wavelengths_A"))
    for field, stem in (("W", "W"), ("b", "b"), ("alphas", "alpha"), ("betas", "beta")):
        fields[field] = [arrays[f"{stem}{i}"] for i in range(len(arrays)) if f"{stem}{i}" in arrays]
    missing = [name for name in FIELDS[:_NEEDED] if not _given(fields, name)]
    if missing:
        raise ValueError(f"{path}: not a Speculator network: it lacks {', '.join(missing)}")
    return fields


def _declared(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Bytes that a member takes: numpy makes an array as its header says, and then fills it."""
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    size = math.prod(shape) * dtype.itemsize
    if size > member.file_size:
        raise ValueError(
            f"{member.filename}: {size} bytes declared, {member.file_size} in the archive"
        )
    return member.file_size


def _given(fields: Mapping[str, Any], name: str) -> bool:
    if name in ("n_parameters", "n_wavelengths"):
        return True  # the arrays say it
    return fields.get(name) is not None and np.size(fields[name][0]) > 0


def _window(fields: Mapping[str, Any]) -> tuple[SpectralWindow, np.ndarray, int]:
    """Check the shapes and fold all scalings into the first layer, the last and the basis."""
    weights, biases, alphas, betas = (
        [np.asarray(a, float) for a in fields[name]] for name in ("W", "b", "alphas", "betas")
    )
    n = len(weights)
    if n < 2 or len(biases) != n or {len(alphas), len(betas)} - {n - 1, n}:
        raise ValueError(
            f"{n} weights, {len(biases)} biases, {len(alphas)} alphas and {len(betas)} betas: "
            "expected an activation for every layer but the last"
        )
    vectors = {name: np.asarray(fields[name], float) for name in FIELDS[4:11]}
    basis = vectors.pop("pca_transform_matrix")
    wave = np.asarray(fields["wavelengths"], float)
    if basis.ndim != 2 or weights[0].ndim != 2:
        raise ValueError("expected matrices of weights and a PCA matrix [component, wave]")
    n_in, (n_pca, n_wave) = weights[0].shape[0], basis.shape
    if wave.shape != (n_wave,) or np.any(np.diff(wave) <= 0) or wave[0] <= 0:
        raise ValueError(f"expected {n_wave} increasing wavelengths, got shape {wave.shape}")
    for name, values in vectors.items():
        size = {"par": n_in, "pca": n_pca, "log": n_wave}[name[:3]]
        if values.shape != (size,):
            raise ValueError(f"expected {name} of shape ({size},), got {values.shape}")
    if np.any(vectors["parameters_scale"] == 0):
        raise ValueError("parameters_scale has zeros")
    layers = [
        (w, b, *activation)
        for w, b, *activation in zip(weights[:-1], biases[:-1], alphas, betas, strict=False)
    ]
    window = spectral_window(
        [*layers, (weights[-1], biases[-1])],
        parameters=(vectors["parameters_shift"], vectors["parameters_scale"]),
        scores=(vectors["pca_shift"], vectors["pca_scale"]),
        basis=basis,
        spectrum=(vectors["log_spectrum_shift"], vectors["log_spectrum_scale"]),
        activation="speculator",
    )
    return window, wave, n_in
