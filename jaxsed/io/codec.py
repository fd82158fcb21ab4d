"""Writes the fields of a component as arrays and attributes, and reads them."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxsed.io.flat import restorer
from jaxsed.io.hints import (
    AS_ARRAY,
    AS_JSON,
    Hint,
    Place,
    defaults_of,
    fields_of,
    is_component,
    is_record,
    parsed_hint,
)

ABSENT: Any = object()
"""What is not in a file."""


# --- writing --------------------------------------------------------------------------------------


class _Group(dict):
    """Attributes below a path."""


def content(component: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and attributes of a component, by name."""
    arrays: dict[str, Any] = {}
    attributes = _Group()

    def put(name: str, value: Any) -> None:
        *groups, last = name.split("/")
        place: Any = attributes
        for group in groups:
            place = place.setdefault(group, _Group())
        place[last] = value

    def write(value: Any, hint: Hint, at: Place) -> None:
        name = at.name
        if name is None or name.startswith("=") or (value is None and hint.has_arrays):
            return
        if hint.flat and not hint.is_tuple:
            arrays[name] = ravel_pytree(value)[0]
        elif hint.is_array:
            arrays[name] = np.asarray(value)
        elif AS_JSON in hint.markers:
            put(name, json.loads(value))
        elif is_component(type(value)):
            write_component(value, at.inside(type(value)))
        elif is_record(hint.type):
            write_fields(value, at)
        elif hint.has_arrays:
            for i, part in enumerate(value):
                element = parsed_hint(hint.element(i))
                markers = hint.markers if hint.flat else element.markers
                write(part, element._replace(markers=markers), at.below(i))
        else:
            put(name, float(value) if hint.type is float and value is not None else _json(value))

    def write_fields(value: Any, at: Place) -> None:
        cls: Any = type(value)
        for field, hint in fields_of(cls).items():
            write(getattr(value, field), parsed_hint(hint), at.below(field))

    def write_component(value: Any, at: Place) -> None:
        for name, said in (value._counts() | value._about()).items():
            put(at.prefix + name, said)
        write_fields(value._before_saving(), at)

    write_component(component, Place(names=component._names))
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


class Stored(NamedTuple):
    """Content of a file."""

    arrays: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any]
    used: set[str]
    """Names of arrays that were read."""

    def array(self, name: str) -> Any:
        """An array, or `ABSENT`."""
        if name not in self.arrays:
            return ABSENT
        self.used.add(name)
        return self.arrays[name]

    def attribute(self, name: str) -> Any:
        """An attribute by its path, or `ABSENT`; ValueError where it is not a path."""
        found: Any = self.attributes
        for k, part in enumerate(parts := name.split("/")):
            if isinstance(found, list) and part.isdigit():
                found = found[int(part)] if int(part) < len(found) else ABSENT
            elif isinstance(found, dict):
                found = found.get(part, ABSENT)
            elif found is not ABSENT:
                raise ValueError(f"expected attributes below {'/'.join(parts[:k])}")
        return found


def read_component(cls: Any, stored: Stored, given: Mapping[str, Any]) -> Any:
    """An object of a component's class, or anything raised that says why there is none.

    Args:
        cls: the class.
        stored: content of the file.
        given: fields that are not in it.
    """
    found = _read_component(cls, Place(), stored, given)
    if found is ABSENT:
        raise ValueError("it has none of the fields")
    if unknown := sorted(set(stored.arrays) - stored.used):
        raise ValueError(f"unknown arrays {', '.join(unknown)}")
    return found


def _read_component(
    cls: Any, at: Place, stored: Stored, given: Mapping[str, Any] | None = None
) -> Any:
    at = at.inside(cls)
    found = _read_fields(cls, at, stored, {}, given)
    if found is ABSENT:
        return found
    for name, expected in found._counts().items():
        said = stored.attribute(at.prefix + name)
        if said is ABSENT or json.loads(json.dumps(expected)) != said:
            said = "none" if said is ABSENT else repr(said)[:100]
            raise ValueError(f"expected {name} {expected}, got {said}")
    return found._after_loading()


def _read_fields(
    cls: Any, at: Place, stored: Stored, sizes: dict[str, int],
    given: Mapping[str, Any] | None = None,
) -> Any:  # fmt: skip
    """A dataclass or named tuple; absent where nothing of it is in the file."""
    found, lacking, is_there = dict(given or {}), [], False
    hints = {name: parsed_hint(hint) for name, hint in fields_of(cls).items()}
    # the shapes of weights follow from the other fields
    for field, hint in sorted(hints.items(), key=lambda item: item[1].flat is not None):
        place = at.below(field)
        name = place.name
        if name is None:
            if field not in found:
                found[field] = defaults_of(cls).get(field, lambda: None)()
            continue
        if hint.flat:
            like = partial(hint.flat.like, SimpleNamespace(**found), stored.attributes)
            value = _read_flat(hint, place, stored, like)
        else:
            value = _read(hint, place, stored, sizes)
        if value is not ABSENT:
            found[field] = value
            is_there = is_there or not name.startswith("=")
        elif field in defaults_of(cls):
            found[field] = defaults_of(cls)[field]()
        elif hint.optional or (hint.is_endless and hint.has_arrays):
            found[field] = None if hint.optional else ()
        else:
            lacking.append(name)
    if not is_there:
        return ABSENT
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    return cls(**found)


def _read_flat(hint: Hint, at: Place, stored: Stored, like: Callable[[], Any]) -> Any:
    """Weights of a vector, or a tuple of weights of one vector each."""
    restore = restorer(like)
    if not hint.is_tuple:
        flat = stored.array(at.name or "")
        return flat if flat is ABSENT else restore(flat)
    found: list[Any] = []
    while (flat := stored.array(at.below(len(found)).name or "")) is not ABSENT:
        found.append(restore(flat))
    return tuple(found)


def _read(hint: Hint, at: Place, stored: Stored, sizes: dict[str, int]) -> Any:
    """A value of any kind, or absent."""
    if is_component(hint.type):
        return _read_component(hint.type, at, stored)
    if is_record(hint.type):
        return _read_fields(hint.type, at, stored, sizes)
    if hint.is_tuple and hint.has_arrays and not hint.is_array:
        return _read_parts(hint, at, stored)
    name = (at.name or "").removeprefix("=")
    value = stored.array(name) if hint.is_array else stored.attribute(name)
    if value is ABSENT:
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
        return json.dumps(_parsed(parsed_hint(dict), value, name), sort_keys=True)
    return _parsed(hint, value, name)


def _read_parts(hint: Hint, at: Place, stored: Stored) -> Any:
    """A tuple of things with arrays; absent where there is none of them."""
    found: list[Any] = []
    count = None if hint.is_endless else len(typing.get_args(hint.type))
    while len(found) != count:
        i = len(found)
        part = _read(parsed_hint(hint.element(i)), at.below(i), stored, {})
        if part is ABSENT:
            break
        found.append(part)
    if found and len(found) < (count or 0):
        raise ValueError(f"it lacks {at.below(len(found)).name}")
    return tuple(found) if found else ABSENT


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


def _parsed(hint: Hint, value: Any, name: str) -> Any:
    """A value of JSON as its type has it: texts, numbers, tuples and dictionaries of them."""
    wanted = hint.type
    if wanted is Any or (value is None and hint.optional):
        return value
    if hint.is_tuple and isinstance(value, list):
        parts = len(value) if hint.is_endless else len(typing.get_args(wanted))
        if len(value) != parts:
            raise ValueError(f"expected {parts} entries of {name}, got {len(value)}")
        return tuple(_parsed(parsed_hint(hint.element(i)), v, name) for i, v in enumerate(value))
    if is_record(wanted) and isinstance(value, dict):
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
    found = _read_fields(hint, Place(), Stored({}, value, set()), {})
    return hint() if found is ABSENT else found
