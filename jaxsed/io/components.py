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

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from jaxsed.io import codec, files
from jaxsed.io.codec import parse
from jaxsed.io.hints import AS_ARRAY, AS_JSON, Flat

__all__ = ["AS_ARRAY", "AS_JSON", "KINDS", "Component", "Flat", "class_of", "parse"]

KINDS: dict[str, type[Component]] = {}
"""Classes by what their files say that they are; one is here when its module is imported."""


class Component:
    """A frozen dataclass that is a kind of file.

    ``class Cannon(Component, kind="cannon model")`` gives the kind, a `title` for messages (by
    default the kind), and `names` of paths, in which "{}" is any field or number: None for what is
    not kept, "" for a part whose fields have no prefix, "=name" for what is read and not written.
    """

    KIND: ClassVar[str]
    """What its files say that they are."""
    _title: ClassVar[str]
    _names: ClassVar[Mapping[str, str | None]]

    def __init_subclass__(
        cls, kind: str, title: str = "", names: Mapping[str, str | None] | None = None
    ) -> None:
        cls.KIND, cls._title, cls._names = kind, title or kind, names or {}
        KINDS[kind] = cls

    def save(self, path: str | Path) -> None:
        """Write an HDF5 file with a checksum, replacing an older one in a single step."""
        files.write(path, self.KIND, *codec.content(self))

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
            return codec.read_component(cls, codec.Stored(arrays, attributes, set()), given)

    def checksum(self) -> str:
        """SHA-256 of all that `save` writes, for provenance."""
        return files.content_checksum(self.KIND, *codec.content(self))

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
