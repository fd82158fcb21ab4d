"""Type hints of a component's fields, and the names that paths of fields have in its file."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Annotated, Any, NamedTuple, Union

import numpy as np
from jax import Array

AS_ARRAY, AS_JSON = "as array", "as JSON"
"""Markers of fields; see `jaxsed.io.components`."""


@dataclasses.dataclass(frozen=True)
class Flat:
    """Weights that are kept as one vector (`jax.flatten_util.ravel_pytree`).

    ``like(own, attributes)`` gives weights of the same shapes, from the other fields of the
    component and the attributes of its file. It is traced, so that sizes that a file declares take
    no memory before they are compared with the vector.
    """

    like: Callable[[Any, Mapping[str, Any]], Any]


class Place(NamedTuple):
    """Where in a component, and in its file, a value is."""

    prefix: str = ""
    """Of the names of the innermost component."""
    names: Mapping[str, str | None] = {}
    path: str = ""
    """Of fields, from the innermost component."""

    def below(self, field: Any) -> Place:
        """Of a field, or of an element of a tuple."""
        return self._replace(path=f"{self.path}/{field}" if self.path else str(field))

    def inside(self, cls: Any) -> Place:
        """In a component that is here."""
        return Place(f"{self.name}/" if self.path else self.prefix, cls._names)

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


class Hint(NamedTuple):
    """A type hint in its parts."""

    type: Any
    markers: tuple[Any, ...]
    optional: bool

    @property
    def axes(self) -> str | None:
        """Names of axes."""
        texts = (m for m in self.markers if isinstance(m, str) and m not in (AS_ARRAY, AS_JSON))
        return next(texts, None)

    @property
    def flat(self) -> Flat | None:
        """How weights are made, of a field with the marker."""
        return next((m for m in self.markers if isinstance(m, Flat)), None)

    @property
    def is_array(self) -> bool:
        """Whether it is one array."""
        return self.type in (Array, np.ndarray) or AS_ARRAY in self.markers

    @property
    def has_arrays(self) -> bool:
        """Whether there are arrays in it."""
        if self.is_array or self.flat:
            return True
        if is_record(self.type):
            return any(parsed_hint(own).has_arrays for own in fields_of(self.type).values())
        parts = typing.get_args(self.type) if self.is_tuple else ()
        return any(parsed_hint(part).has_arrays for part in parts if part is not ...)

    @property
    def is_tuple(self) -> bool:
        """Whether it is a tuple without names."""
        return typing.get_origin(self.type) is tuple

    @property
    def is_endless(self) -> bool:
        """Whether it is a tuple of any length."""
        return self.is_tuple and typing.get_args(self.type)[-1] is ...

    def element(self, i: int) -> Any:
        """Hint of an element of a tuple."""
        return typing.get_args(self.type)[0 if self.is_endless else i]


def parsed_hint(hint: Any) -> Hint:
    """The parts of a type hint."""
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
                return Hint(hint, markers, optional)
            hint = float if len(options) > 1 else options[0]  # a scalar array or a float
        else:
            return Hint(hint, markers, optional)


@cache
def fields_of(cls: Any) -> dict[str, Any]:
    """Type hints of the fields of a dataclass or named tuple."""
    hints = typing.get_type_hints(cls, include_extras=True)
    names = getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)]
    return {name: hints[name] for name in names}


@cache
def defaults_of(cls: Any) -> dict[str, Callable[[], Any]]:
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


def is_record(hint: Any) -> bool:
    """Whether a type is a dataclass or a named tuple."""
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"))


def is_component(hint: Any) -> bool:
    """Whether a type is a `jaxsed.io.components.Component`."""
    return is_record(hint) and hasattr(hint, "KIND")
