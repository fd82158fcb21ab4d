"""The methods by the names that a configuration knows."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxsed.infer.samplers.base import Method
from jaxsed.infer.samplers.chees import ChEES
from jaxsed.infer.samplers.ensemble import AffineInvariant, EnsembleSlice
from jaxsed.infer.samplers.hmc import HMC
from jaxsed.infer.samplers.mclmc import MCLMC
from jaxsed.infer.samplers.nested import NestedSlice
from jaxsed.infer.samplers.numpyro_nuts import NumpyroNUTS
from jaxsed.infer.samplers.nuts import NUTS

METHODS: dict[str, type[Method]] = {
    cls.name: cls
    for cls in (HMC, NUTS, MCLMC, ChEES, NumpyroNUTS, EnsembleSlice, AffineInvariant, NestedSlice)
}


def method_of(name: str, **options: Any) -> Method:
    """The method of a name, with those of the options that it has.

    Raises ValueError for a name that is not one of `METHODS`.
    """
    if name not in METHODS:
        raise ValueError(
            f"unknown method {name!r}: expected one of {', '.join(METHODS)}, or for the draws of a "
            "flow FlowImportance(flow=...)"
        )
    own = {f.name for f in dataclasses.fields(METHODS[name])}
    return METHODS[name](**{k: value for k, value in options.items() if k in own})


def options_of(method: Method) -> dict[str, Any]:
    """The options of a method that are not its defaults, for another one that shares some."""
    own = {f.name: (getattr(method, f.name), f.default) for f in dataclasses.fields(method)}
    return {name: value for name, (value, default) in own.items() if value != default}
