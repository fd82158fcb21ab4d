"""Checkpoints of training runs: HDF5, written whole or not at all, tied to their run."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.core.types import Model
from jaxsed.io import files, hdf5

_FORMAT = "jaxsed training checkpoint 1"


class Checkpoint(NamedTuple):
    """Contents of a checkpoint file."""

    trees: dict[str, Any]
    progress: dict[str, Any]
    records: list[tuple]


def identity(key: jax.Array, settings, model: Model) -> str:
    """Digest of what must not change between the parts of one run.

    Limits on time and epochs are left out: a run may be given more of them.
    """
    named = {k: v for k, v in settings.to_dict().items() if k not in ("max_seconds", "epochs")}
    shapes = [
        (jax.tree_util.keystr(path), jnp.shape(leaf), str(jnp.result_type(leaf)))
        for path, leaf in jax.tree_util.tree_leaves_with_path(model)
    ]
    words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    text = json.dumps([named, shapes, np.asarray(words).tolist()])
    return hashlib.sha256(text.encode()).hexdigest()


def save(path: str | Path, identity: str, trees: dict[str, Any], progress: dict, records) -> None:
    """Write a checkpoint, replacing an older one in a single step."""
    with files.creating(path) as file:
        file.attrs["format"] = _FORMAT
        file.attrs["identity"] = identity
        file.attrs["progress"] = json.dumps({k: float(v) for k, v in progress.items()})
        file["records"] = np.asarray(records, float)
        for name, tree in trees.items():
            for i, leaf in enumerate(jax.tree.leaves(tree)):
                file[f"{name}/{i}"] = np.asarray(leaf)


def load(path: str | Path, identity: str, like: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint into trees of the structure of `like`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no checkpoint, is damaged, or belongs to another run; the message
            names it.
    """
    try:
        with hdf5.opened(path) as file:
            return _read(file, identity, like)
    except ValueError as problem:
        reason = str(problem).removeprefix(f"{path}: ")
        raise ValueError(
            f"{path}: not a readable checkpoint of this run ({reason}): remove the file to start "
            "afresh"
        ) from problem


def _read(file: hdf5.Reader, identity: str, like: dict[str, Any]) -> Checkpoint:
    if file.attribute("format") != _FORMAT:
        raise ValueError(f"{file.path}: expected a {_FORMAT}, got another kind of HDF5 file")
    if file.text_attribute("identity") != identity:
        raise ValueError(
            f"{file.path}: the checkpoint is of a run with another key, model or settings: "
            "continue with those that it was started with"
        )
    trees = {}
    for name, tree in like.items():
        leaves, structure = jax.tree.flatten(tree)
        arrays = [
            jnp.asarray(file.array(f"{name}/{i}", shape=jnp.shape(leaf)))
            for i, leaf in enumerate(leaves)
        ]
        trees[name] = jax.tree.unflatten(structure, arrays)
    with files.complete(file.path, "checkpoint"):
        numbers = json.loads(file.text_attribute("progress"))
        counters = ("stage", "epoch", "stage_epoch", "stale_epochs", "samples", "best_epoch")
        progress = {k: int(v) if k in counters else float(v) for k, v in numbers.items()}
    records = file.array("records")
    return Checkpoint(trees, progress, [tuple(row) for row in np.atleast_1d(records)])
