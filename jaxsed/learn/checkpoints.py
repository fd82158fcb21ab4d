"""Checkpoints of training runs: HDF5, written whole or not at all, tied to their run."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np

_FORMAT = "jaxsed training checkpoint 1"


class Checkpoint(NamedTuple):
    """Contents of a checkpoint file."""

    trees: dict[str, Any]
    progress: dict[str, Any]
    records: list[tuple]


def identity(key: jax.Array, settings, model: Any) -> str:
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
    partial = Path(f"{path}.partial")
    with h5py.File(partial, "w") as file:
        file.attrs["format"] = _FORMAT
        file.attrs["identity"] = identity
        file.attrs["progress"] = json.dumps({k: float(v) for k, v in progress.items()})
        file["records"] = np.asarray(records, float)
        for name, tree in trees.items():
            for i, leaf in enumerate(jax.tree.leaves(tree)):
                file[f"{name}/{i}"] = np.asarray(leaf)
    os.replace(partial, path)


def load(path: str | Path, identity: str, like: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint into trees of the structure of `like`.

    Raises:
        ValueError: the file is no checkpoint, is damaged, or belongs to another run.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != _FORMAT:
                raise ValueError(f"{path}: expected a {_FORMAT}, got another kind of HDF5 file")
            if file.attrs["identity"] != identity:
                raise ValueError(
                    f"{path}: the checkpoint is of a run with another key, model or settings: "
                    "continue with those it was started with, or remove the file to start afresh"
                )
            trees = {}
            for name, tree in like.items():
                leaves, structure = jax.tree.flatten(tree)
                arrays = [jnp.asarray(file[f"{name}/{i}"][()]) for i in range(len(leaves))]
                trees[name] = jax.tree.unflatten(structure, arrays)
            numbers = json.loads(file.attrs["progress"])
            counters = ("stage", "epoch", "stage_epoch", "stale_epochs", "samples", "best_epoch")
            progress = {k: int(v) if k in counters else v for k, v in numbers.items()}
            return Checkpoint(trees, progress, [tuple(row) for row in file["records"][()]])
    except (OSError, KeyError) as error:
        raise ValueError(
            f"{path}: not a readable checkpoint ({error}): remove the file to start afresh"
        ) from error
