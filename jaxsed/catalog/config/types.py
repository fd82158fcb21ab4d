"""Types of configuration keys: what they take, and what to say of a value that they do not take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from jaxsed.core.errors import nearest

Text = Annotated[str, Field(pattern=r"\S")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class OneOf:
    """One of some words, which the JSON schema lists."""

    def __init__(self, *options: str) -> None:
        self.options = options

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"enum": list(self.options)}

    def _check(self, value: str) -> str:
        if value not in self.options:
            hint = nearest(value, self.options, 1)
            raise ValueError(f"expected one of {', '.join(self.options)}.{hint}")
        return value


def redshift_up_to(highest: float) -> BeforeValidator:
    """A column name, "free", or a redshift above zero."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value.strip():
            return value
        if is_number(value) and 0 < value <= highest:
            return float(value)
        raise ValueError(f'expected a number in (0, {highest:g}], a column name or "free"')

    return BeforeValidator(check)


def interval_in(lowest: float, highest: float) -> BeforeValidator:
    """``[low, high]`` with low < high."""

    def check(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError("expected [low, high]")
        if not all(is_number(v) and lowest <= v <= highest for v in value):
            raise ValueError(f"expected [low, high], numbers in [{lowest:g}, {highest:g}]")
        low, high = map(float, value)
        if not low < high:
            raise ValueError("expected [low, high] with low < high")
        return low, high

    return BeforeValidator(check)


def is_number(value: Any) -> bool:
    """Whether a value of TOML is a number, and not NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def schema_of(section: type) -> dict[str, Any]:
    """The JSON schema of a section."""
    return TypeAdapter(section).json_schema()


def expectation(section: type, error: Mapping[str, Any]) -> str:
    """What the key of an error of pydantic takes, in words: those of its own check, or by its
    schema."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    schema = schema_of(section)["properties"][str(error["loc"][0])]
    return f"expected {_words(schema)}"


def _words(schema: Mapping[str, Any]) -> str:
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    kind = kinds[0]
    low, high = kind.get("minimum"), kind.get("maximum")
    if "enum" in kind:
        return f"one of {', '.join(kind['enum'])}"
    if kind["type"] == "array":
        return f"a list of {', '.join(kind['items'].get('enum', ()))}"
    if kind["type"] == "integer":
        return "a whole number" if low is None else f"a whole number from {low} to {high}"
    if kind["type"] == "number":
        return "a number" if low is None else f"a number in [{low:g}, {high:g}]"
    return {"boolean": "true or false", "string": "text in quotes"}[kind["type"]]
