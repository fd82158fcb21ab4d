"""Files of trained star networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxsed.io import files
from jaxsed.nets.flat import check_sizes, restorer
from jaxsed.stars import networks
from jaxsed.stars.record import Reach, Record, Scaling

if TYPE_CHECKING:
    from jaxsed.stars.model import StarModel

KIND = "star network"

CALIBRATIONS = ("calibration", "calibration_flux")


def write(path: str | Path, model: StarModel) -> None:
    """Write an HDF5 file that `read` reads."""
    arrays: dict[str, Any] = {name: getattr(model, name) for name in CALIBRATIONS}
    for i, member in enumerate(model.members):
        arrays[f"member{i}"] = ravel_pytree(member)[0]
        for j, covariance in enumerate((model.laplace or {i: ()})[i]):
            arrays[f"laplace{i}/{j}"] = covariance
    for part in (model.scaling, model.reach):
        arrays |= {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    first = model.members[0]
    record = dataclasses.asdict(model.record)
    arrays["wave"] = np.array(record.pop("wave"))
    attributes: dict[str, Any] = {
        "record": record,
        "members": len(model.members),
        "architecture": dataclasses.asdict(first.architecture),
        "laplace": model.laplace is not None,
    }
    if isinstance(first, networks.Censored):
        attributes["windows"] = [list(window) for window in first.windows]
    files.write(path, KIND, arrays, attributes)


def read(path: str | Path) -> dict[str, Any]:
    """The fields of the `StarModel` of a file that `write` wrote.

    Raises FileNotFoundError, and ValueError for another or a damaged file.
    """
    arrays, attributes = files.read(path, KIND)
    with files.complete(path, KIND):
        return _fields(arrays, attributes)


def _fields(arrays: dict[str, np.ndarray], attributes: dict[str, Any]) -> dict[str, Any]:
    record = _record(attributes["record"], arrays["wave"])
    restore = _restorer(record, attributes)
    count = attributes["members"]
    if not 1 <= count <= len(arrays):
        raise ValueError(f"{count} members")
    pixels, labels = (len(record.wave),), (len(record.labels),)
    files.check_shapes(arrays, {"spectrum": pixels, "mean": labels, "std": labels, "limit": ()})
    files.check_shapes(arrays, dict.fromkeys(CALIBRATIONS, labels))
    laplace = None
    if attributes["laplace"]:
        laplace = tuple(
            tuple(jnp.asarray(arrays[f"laplace{i}/{j}"]) for j in range(len(record.labels)))
            for i in range(count)
        )
    part = lambda kind: kind(  # noqa: E731
        **{f.name: jnp.asarray(arrays[f.name]) for f in dataclasses.fields(kind)}
    )
    return {
        "members": tuple(restore(arrays[f"member{i}"]) for i in range(count)),
        "scaling": part(Scaling),
        "reach": part(Reach),
        **{name: jnp.asarray(arrays[name]) for name in CALIBRATIONS},
        "laplace": laplace,
        "record": record,
    }


def _record(stored: dict[str, Any], wave: np.ndarray) -> Record:
    lists = {name: tuple(stored[name]) for name in ("labels", "low", "high")}
    if not all(isinstance(name, str) for name in lists["labels"]):
        raise ValueError(f"labels {lists['labels']}")
    if not len(lists["labels"]) == len(lists["low"]) == len(lists["high"]):
        raise ValueError("expected the lowest and highest value of every label")
    if wave.ndim != 1 or wave.dtype.kind != "f":
        raise ValueError(f"expected wavelengths [pixel], got {wave.dtype} of shape {wave.shape}")
    return Record(wave=tuple(wave.tolist()), **(stored | lists))


def _window(chosen: list[int], pixels: int) -> np.ndarray:
    window = np.zeros(pixels)
    window[np.array(chosen, int)] = 1.0
    return window


def _restorer(record: Record, attributes: dict[str, Any]) -> Any:
    """What makes a network of its flat weights."""
    check_sizes(attributes["architecture"])
    stored = attributes["architecture"].items()
    given: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in stored}
    pixels = len(record.wave)
    elements = [name for name in record.labels if name not in networks.PARAMETERS]
    windows: dict[str, Any] = {
        name: _window(chosen, pixels)
        for name, chosen in zip(elements, attributes.get("windows", ()), strict=False)
    }
    sizes = networks.Architecture(**given)
    return restorer(
        lambda: networks.init(
            jax.random.key(0), record.kind, pixels, record.labels, windows=windows,
            architecture=sizes,
        )
    )  # fmt: skip
