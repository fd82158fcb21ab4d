"""Components: frozen dataclasses as HDF5 files, by what their fields say.

A `Component` is saved and loaded by walking its type hints. Arrays become datasets; numbers, texts,
dictionaries and tuples of them become attributes in JSON. Both go by the path of the field, such as
``scaling/mean`` or ``windows/0/basis``, or by the name that the class gives to that path. Markers
in ``Annotated[type, marker]`` say more of a field:

* a text names the axes of an array or tuple, as "label pixel", "bin+1", "2 band", or "" for a
  number: an axis has one size in a component, which loading checks;
* `AS_ARRAY`: a long tuple of numbers, kept as an array;
* `AS_JSON`: a text in JSON, kept as what it says;
* `Flat`: weights, kept as one vector.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, NamedTuple, Self, Union

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxsed.io import files
from jaxsed.io.flat import restorer

KINDS: dict[str, type[Component]] = {}
"""Classes by what their files say that they are; one is here when its module is imported."""

AS_ARRAY, AS_JSON = "as array", "as JSON"

_ABSENT: Any = object()


@dataclasses.dataclass(frozen=True)
class Flat:
    """Weights that are kept as one vector (`jax.flatten_util.ravel_pytree`).

    ``like(own, attributes)`` gives weights of the same shapes, from the other fields of the
    component and the attributes of its file. It is traced, so that sizes that a file declares take
    no memory before they are compared with the vector.
    """

    like: Callable[[Any, Mapping[str, Any]], Any]


class Component:
    """A frozen dataclass that is a kind of file.

    ``class Cannon(Component, kind="cannon model")`` gives the kind, a `title` for messages (by
    default the kind), and `names` of paths, in which "{}" is any field or number: None for what is
    not kept, "" for a part whose fields have no prefix, "=name" for what is read and not written.
    """

    KIND: ClassVar[str]
    _title: ClassVar[str]
    _names: ClassVar[Mapping[str, str | None]]

    def __init_subclass__(
        cls, kind: str, title: str = "", names: Mapping[str, str | None] | None = None
    ) -> None:
        cls.KIND, cls._title, cls._names = kind, title or kind, names or {}
        KINDS[kind] = cls

    def save(self, path: str | Path) -> None:
        """Write an HDF5 file with a checksum, replacing an older one in a single step."""
        files.write(path, self.KIND, *_content(self))

    @classmethod
    def load(cls, path: str | Path, **given: Any) -> Self:
        """Read a file that `save` wrote.

        Args:
            path: the file.
            given: fields that files do not keep; they are else None, or as by default.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another kind of file, or a damaged one; the message names the file.
        """
        arrays, attributes = files.read(path, cls.KIND)
        with files.complete(path, cls._title):
            stored = _Stored(arrays, attributes, set())
            found = _read_component(cls, _Place(), stored, given)
            if unknown := sorted(set(arrays) - stored.used):
                raise ValueError(f"unknown arrays {', '.join(unknown)}")
            return found

    def checksum(self) -> str:
        """SHA-256 of all that `save` writes, for provenance."""
        return files.content_checksum(self.KIND, *_content(self))

    def _counts(self) -> dict[str, Any]:
        """Attributes that follow from the fields, with which those of a file must agree."""
        return {}

    def _about(self) -> dict[str, Any]:
        """Further attributes, for readers of the file and for `Flat`."""
        return {}

    def _before_saving(self) -> Any:
        """What is written of it."""
        return self

    def _after_loading(self) -> Self:
        """The component, or any exception where its parts do not fit each other."""
        return self


def class_of(path: str | Path) -> type[Component] | None:
    """The class of the component in a file; None for a kind that is not among the `KINDS`.

    Raises FileNotFoundError, and ValueError for a file that is no component's.
    """
    return KINDS.get(files.kind(path))


class _Place(NamedTuple):
    """Where in a component, and in its file, a value is."""

    prefix: str = ""
    """Of the names of the innermost component."""
    names: Mapping[str, str | None] = {}
    path: str = ""
    """Of fields, from the innermost component."""

    def below(self, field: Any) -> _Place:
        return self._replace(path=f"{self.path}/{field}" if self.path else str(field))

    def inside(self, cls: type[Component]) -> _Place:
        return _Place(f"{self.name}/" if self.path else self.prefix, cls._names)

    @property
    def name(self) -> str | None:
        """In the file; None where nothing is kept."""
        for pattern, new in self.names.items():
            parts = (re.escape(part) for part in pattern.split("{}"))
            if found := re.fullmatch(f"{'([^/]+)'.join(parts)}(?P<rest>/.*)?", self.path):
                if new is None:
                    return None
                *groups, rest = found.groups(default="")
                read_only = "=" if new.startswith("=") else ""
                name = new.removeprefix("=").format(*groups) + rest
                return f"{read_only}{self.prefix}{name.removeprefix('/')}"
        return self.prefix + self.path


class _Hint(NamedTuple):
    """A type hint in its parts."""

    type: Any
    markers: tuple[Any, ...]
    optional: bool

    @property
    def axes(self) -> str | None:
        texts = (m for m in self.markers if isinstance(m, str) and m not in (AS_ARRAY, AS_JSON))
        return next(texts, None)

    @property
    def flat(self) -> Flat | None:
        return next((m for m in self.markers if isinstance(m, Flat)), None)

    @property
    def is_array(self) -> bool:
        return self.type in (Array, np.ndarray) or AS_ARRAY in self.markers

    @property
    def has_arrays(self) -> bool:
        """Whether there are arrays in it."""
        if self.is_array or self.flat:
            return True
        if _is_record(self.type):
            return any(_hint(own).has_arrays for own in _fields(self.type).values())
        parts = typing.get_args(self.type) if self.is_tuple else ()
        return any(_hint(part).has_arrays for part in parts if part is not ...)

    @property
    def is_tuple(self) -> bool:
        return typing.get_origin(self.type) is tuple

    @property
    def is_endless(self) -> bool:
        """Whether it is a tuple of any length."""
        return self.is_tuple and typing.get_args(self.type)[-1] is ...

    def element(self, i: int) -> Any:
        """Hint of an element of a tuple."""
        return typing.get_args(self.type)[0 if self.is_endless else i]


def _hint(hint: Any) -> _Hint:
    markers: tuple[Any, ...] = ()
    optional = False
    while True:
        if typing.get_origin(hint) is Annotated:
            hint, *more = typing.get_args(hint)
            markers += tuple(more)
        elif typing.get_origin(hint) in (Union, types.UnionType):
            options = [part for part in typing.get_args(hint) if part is not type(None)]
            optional = optional or len(options) < len(typing.get_args(hint))
            if len(options) > 1 and float not in options:
                return _Hint(hint, markers, optional)
            hint = float if len(options) > 1 else options[0]  # a scalar array or a float
        else:
            return _Hint(hint, markers, optional)


@cache
def _fields(cls: Any) -> dict[str, Any]:
    """Type hints of the fields of a dataclass or named tuple."""
    hints = typing.get_type_hints(cls, include_extras=True)
    names = getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)]
    return {name: hints[name] for name in names}


@cache
def _defaults(cls: Any) -> dict[str, Callable[[], Any]]:
    """What gives the default of each field that has one."""
    if not dataclasses.is_dataclass(cls):
        return {name: partial(_same, value) for name, value in cls._field_defaults.items()}
    found: dict[str, Callable[[], Any]] = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            found[field.name] = partial(_same, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory
    return found


def _same(value: Any) -> Any:
    return value


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"))


# --- writing --------------------------------------------------------------------------------------


class _Group(dict):
    """Attributes below a path."""


def _content(component: Component) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and attributes by name."""
    arrays: dict[str, Any] = {}
    attributes = _Group()

    def put(name: str, value: Any) -> None:
        *groups, last = name.split("/")
        place: Any = attributes
        for group in groups:
            place = place.setdefault(group, _Group())
        place[last] = value

    def write(value: Any, hint: _Hint, at: _Place) -> None:
        name = at.name
        if name is None or name.startswith("=") or (value is None and hint.has_arrays):
            return
        if hint.flat and not hint.is_tuple:
            arrays[name] = ravel_pytree(value)[0]
        elif hint.is_array:
            arrays[name] = np.asarray(value)
        elif AS_JSON in hint.markers:
            put(name, json.loads(value))
        elif isinstance(value, Component):
            write_component(value, at.inside(type(value)))
        elif _is_record(hint.type):
            write_fields(value, at)
        elif hint.has_arrays:
            for i, part in enumerate(value):
                element = _hint(hint.element(i))
                markers = hint.markers if hint.flat else element.markers
                write(part, element._replace(markers=markers), at.below(i))
        else:
            put(name, float(value) if hint.type is float and value is not None else _json(value))

    def write_fields(value: Any, at: _Place) -> None:
        cls: Any = type(value)
        for field, hint in _fields(cls).items():
            write(getattr(value, field), _hint(hint), at.below(field))

    def write_component(value: Component, at: _Place) -> None:
        for name, said in (value._counts() | value._about()).items():
            put(at.prefix + name, said)
        write_fields(value._before_saving(), at)

    write_component(component, _Place(names=component._names))
    return arrays, {name: _plain(value) for name, value in attributes.items()}


def _json(value: Any) -> Any:
    """With dataclasses, which may be in tuples, as dictionaries."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return [_json(part) for part in value]
    is_record = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return dataclasses.asdict(value) if is_record else value


def _plain(value: Any) -> Any:
    """With groups of numbered attributes as lists."""
    if not isinstance(value, _Group):
        return value
    parts = {name: _plain(part) for name, part in value.items()}
    return list(parts.values()) if all(name.isdigit() for name in parts) else parts


# --- reading --------------------------------------------------------------------------------------


class _Stored(NamedTuple):
    """Content of a file."""

    arrays: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any]
    used: set[str]
    """Names of arrays that were read."""

    def array(self, name: str) -> Any:
        if name not in self.arrays:
            return _ABSENT
        self.used.add(name)
        return self.arrays[name]

    def attribute(self, name: str) -> Any:
        found: Any = self.attributes
        for k, part in enumerate(parts := name.split("/")):
            if isinstance(found, list) and part.isdigit():
                found = found[int(part)] if int(part) < len(found) else _ABSENT
            elif isinstance(found, dict):
                found = found.get(part, _ABSENT)
            elif found is not _ABSENT:
                raise ValueError(f"expected attributes below {'/'.join(parts[:k])}")
        return found


def _read_component(
    cls: Any, at: _Place, stored: _Stored, given: Mapping[str, Any] | None = None
) -> Any:
    at = at.inside(cls)
    found = _read_fields(cls, at, stored, {}, given)
    if found is _ABSENT:
        return found
    for name, expected in found._counts().items():
        said = stored.attribute(at.prefix + name)
        if said is _ABSENT or json.loads(json.dumps(expected)) != said:
            said = "none" if said is _ABSENT else repr(said)[:100]
            raise ValueError(f"expected {name} {expected}, got {said}")
    return found._after_loading()


def _read_fields(
    cls: Any, at: _Place, stored: _Stored, sizes: dict[str, int],
    given: Mapping[str, Any] | None = None,
) -> Any:  # fmt: skip
    """A dataclass or named tuple; absent where nothing of it is in the file."""
    found, lacking, is_there = dict(given or {}), [], False
    hints = {name: _hint(hint) for name, hint in _fields(cls).items()}
    # the shapes of weights follow from the other fields
    for field, hint in sorted(hints.items(), key=lambda item: item[1].flat is not None):
        place = at.below(field)
        name = place.name
        if name is None:
            if field not in found:
                found[field] = _defaults(cls).get(field, lambda: None)()
            continue
        if hint.flat:
            like = partial(hint.flat.like, SimpleNamespace(**found), stored.attributes)
            value = _read_flat(hint, place, stored, like)
        else:
            value = _read(hint, place, stored, sizes)
        if value is not _ABSENT:
            found[field] = value
            is_there = is_there or not name.startswith("=")
        elif field in _defaults(cls):
            found[field] = _defaults(cls)[field]()
        elif hint.optional or (hint.is_endless and hint.has_arrays):
            found[field] = None if hint.optional else ()
        else:
            lacking.append(name)
    if not is_there:
        return _ABSENT
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    return cls(**found)


def _read_flat(hint: _Hint, at: _Place, stored: _Stored, like: Callable[[], Any]) -> Any:
    """Weights of a vector, or a tuple of weights of one vector each."""
    restore = restorer(like)
    if not hint.is_tuple:
        flat = stored.array(at.name or "")
        return flat if flat is _ABSENT else restore(flat)
    found: list[Any] = []
    while (flat := stored.array(at.below(len(found)).name or "")) is not _ABSENT:
        found.append(restore(flat))
    return tuple(found)


def _read(hint: _Hint, at: _Place, stored: _Stored, sizes: dict[str, int]) -> Any:
    """A value of any kind, or absent."""
    if isinstance(hint.type, type) and issubclass(hint.type, Component):
        return _read_component(hint.type, at, stored)
    if _is_record(hint.type):
        return _read_fields(hint.type, at, stored, sizes)
    if hint.is_tuple and hint.has_arrays and not hint.is_array:
        return _read_parts(hint, at, stored)
    name = (at.name or "").removeprefix("=")
    value = stored.array(name) if hint.is_array else stored.attribute(name)
    if value is _ABSENT:
        return value
    if hint.axes is not None:
        _check_axes(name, np.shape(value), hint.axes, sizes)
    if AS_ARRAY in hint.markers:
        return tuple(value.astype(float).tolist())
    if hint.type is Array:
        return jnp.asarray(value, float if value.dtype.kind == "f" else None)
    if hint.type is np.ndarray:
        return value
    if AS_JSON in hint.markers:
        return json.dumps(_parsed(_hint(dict), value, name), sort_keys=True)
    return _parsed(hint, value, name)


def _read_parts(hint: _Hint, at: _Place, stored: _Stored) -> Any:
    """A tuple of things with arrays; absent where there is none of them."""
    found: list[Any] = []
    count = None if hint.is_endless else len(typing.get_args(hint.type))
    while len(found) != count:
        i = len(found)
        part = _read(_hint(hint.element(i)), at.below(i), stored, {})
        if part is _ABSENT:
            break
        found.append(part)
    if found and len(found) < (count or 0):
        raise ValueError(f"it lacks {at.below(len(found)).name}")
    return tuple(found) if found else _ABSENT


def _check_axes(name: str, shape: tuple[int, ...], axes: str, sizes: dict[str, int]) -> None:
    words = axes.split()
    expected: list[int | None] = []
    for i, word in enumerate(words):
        axis, _, more = word.partition("+")
        if axis.isdigit():
            expected.append(int(axis))
        else:
            if len(shape) == len(words):
                sizes.setdefault(axis, shape[i] - int(more or 0))
            expected.append(sizes[axis] + int(more or 0) if axis in sizes else None)
    if list(shape) != expected:
        wanted = str(tuple(expected)).replace("None", "any")
        raise ValueError(f"expected {name} [{axes}] of shape {wanted}, got {shape}")


def _parsed(hint: _Hint, value: Any, name: str) -> Any:
    """A value of JSON as its type has it: texts, numbers, tuples and dictionaries of them."""
    wanted = hint.type
    if wanted is Any or (value is None and hint.optional):
        return value
    if hint.is_tuple and isinstance(value, list):
        parts = len(value) if hint.is_endless else len(typing.get_args(wanted))
        if len(value) != parts:
            raise ValueError(f"expected {parts} entries of {name}, got {len(value)}")
        return tuple(_parsed(_hint(hint.element(i)), v, name) for i, v in enumerate(value))
    if _is_record(wanted) and isinstance(value, dict):
        return parse(wanted, value)
    plain = typing.get_origin(wanted) or wanted
    if plain is Mapping:
        plain = dict
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(plain, type) or plain is tuple or not isinstance(value, plain):
        raise ValueError(f"expected {name} of type {wanted}, got {repr(value)[:60]}")
    if plain is int and isinstance(value, bool):
        raise ValueError(f"expected an integer as {name}, got {value}")
    return value


def parse(hint: Any, value: Mapping[str, Any]) -> Any:
    """A dataclass without arrays from an attribute of a file; ValueError if it is not one."""
    found = _read_fields(hint, _Place(), _Stored({}, value, set()), {})
    return hint() if found is _ABSENT else found
