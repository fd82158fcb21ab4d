"""The codec of components: what it writes, what it refuses."""

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax import Array

from jaxsed.io import components, files
from jaxsed.io.components import AS_ARRAY, AS_JSON, Component, Flat


class Scale(NamedTuple):
    mean: Annotated[Array, "label"]
    offset: float = 0.5


@struct.dataclass
class Part:
    basis: Annotated[Array, "score wave"]
    name: str = struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class Note:
    text: str
    counts: tuple[int, ...] = ()


@struct.dataclass
class Toy(Component, kind="toy of the tests", names={"scale": "", "parts/{}/name": "names/{}"}):
    scale: Scale
    parts: tuple[Part, ...]
    weights: Annotated[dict[str, Array], Flat(lambda own, said: {"a": jnp.zeros(said["size"])})]
    labels: Annotated[tuple[str, ...], "label"] = struct.field(pytree_node=False)
    wave: Annotated[tuple[float, ...], AS_ARRAY, "wave"] = struct.field(pytree_node=False)
    note: Annotated[str, AS_JSON] = struct.field(pytree_node=False, default="{}")
    notes: tuple[Note, ...] = struct.field(pytree_node=False, default=())
    extra: Annotated[Array, "2"] | None = None
    limit: float | None = struct.field(pytree_node=False, default=1.0)
    more: dict[str, Any] = struct.field(pytree_node=False, default_factory=dict)

    def _counts(self):
        return {"size": int(self.weights["a"].size)}


def toy(**changes):
    parts = (Part(jnp.ones((2, 3)), "x"), Part(2 * jnp.ones((4, 5)), "y"))
    made = Toy(
        Scale(jnp.array([1.0, 2.0])), parts, {"a": jnp.arange(3.0)}, ("p", "q"), (1.0, 2.5, 7.0),
        '{"k": [1, 2]}', (Note("n", (1, 2)),), None, None, {"deep": {"er": [1, None]}},
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def test_what_is_written_is_read(tmp_path):
    made = toy()
    made.save(tmp_path / "toy.h5")
    arrays, attributes = files.read(tmp_path / "toy.h5", Toy.KIND)
    assert sorted(arrays) == ["mean", "parts/0/basis", "parts/1/basis", "wave", "weights"]
    assert attributes["names"] == ["x", "y"] and attributes["offset"] == 0.5
    assert attributes["note"] == {"k": [1, 2]} and attributes["limit"] is None
    again = Toy.load(tmp_path / "toy.h5")
    jax.tree.map(np.testing.assert_array_equal, again, made)
    assert jax.tree.structure(again) == jax.tree.structure(made)
    assert again.checksum() == made.checksum() == files.checksum(tmp_path / "toy.h5")
    assert components.class_of(tmp_path / "toy.h5") is Toy
    full = toy(extra=jnp.array([3.0, 4.0]), limit=2.0)
    full.save(tmp_path / "toy.h5")
    again = Toy.load(tmp_path / "toy.h5")
    assert again.limit == 2.0 and again.extra.tolist() == [3.0, 4.0]


def without(name):
    return lambda arrays, attributes: (arrays.pop(name, None), attributes.pop(name, None))


def setting(name, value):
    return lambda arrays, attributes: (arrays if name in arrays else attributes).update(
        {name: value}
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without("mean"), "it lacks mean"),
        (without("labels"), "it lacks labels"),
        (without("weights"), "it lacks weights"),
        (without("size"), "size"),
        (setting("size", 4), "expected 4 weights"),
        (setting("labels", ["p"]), r"labels \[label\] of shape \(2,\), got \(1,\)"),
        (setting("labels", [1, 2]), "type <class 'str'>"),
        (setting("labels", "pq"), "labels"),
        (setting("offset", "0"), "offset"),
        (setting("limit", True), "limit"),
        (setting("names", {"0": "x"}), "it lacks names/1"),
        (setting("notes", [{"counts": [1]}]), "it lacks text"),
        (setting("notes", [{"text": "n", "counts": [1.5]}]), "counts"),
        (setting("note", "text"), "note"),
        (setting("wave", np.ones((2, 2))), r"wave \[wave\]"),
        (lambda arrays, _: arrays.update({"parts/3/basis": np.ones((2, 2))}), "unknown arrays"),
        (lambda arrays, _: arrays.update({"extra": np.ones(3)}), r"extra \[2\] of shape \(2,\)"),
    ],
)
def test_incomplete_files_are_refused(tmp_path, change, complaint):
    path = tmp_path / "toy.h5"
    toy().save(path)
    arrays, attributes = files.read(path, Toy.KIND)
    change(arrays, attributes)
    files.write(path, Toy.KIND, arrays, attributes)
    with pytest.raises(ValueError, match=rf"toy\.h5: not a complete .*{complaint}"):
        Toy.load(path)


def test_fields_that_a_file_lacks_are_as_by_default(tmp_path):
    path = tmp_path / "toy.h5"
    toy().save(path)
    arrays, attributes = files.read(path, Toy.KIND)
    for name in ("offset", "limit", "note", "notes", "more"):
        del attributes[name]
    files.write(path, Toy.KIND, arrays, attributes)
    found = Toy.load(path)
    assert (found.scale.offset, found.limit, found.note) == (0.5, 1.0, "{}")
    assert found.notes == () and found.more == {} and found.extra is None


def test_other_kinds_are_no_class(tmp_path):
    files.write(tmp_path / "x.h5", "something else", {"a": np.ones(2)}, {})
    assert components.class_of(tmp_path / "x.h5") is None
    with pytest.raises(ValueError, match="expected a 'toy of the tests' file"):
        Toy.load(tmp_path / "x.h5")
