"""What an emulator was made of and how."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsed.bands.filters import Filter
from jaxsed.core.content import ByContent


@dataclasses.dataclass(frozen=True, eq=False)
class EmulatorRecord(ByContent):
    """What an emulator was made of and how: compared and hashed by content.

    Static metadata: two emulators with equal records share compiled code.
    """

    physics: str = ""  # the physical model, such as "provabgs"
    ssp: str = ""  # the stellar library, such as "pegase2"
    curves: tuple[Filter, ...] = ()  # [band], or empty when unknown
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # JSON types
    citations: tuple[str, ...] = ()
    birth_cloud_age: float | None = None  # Gyr; None where unknown
    igm: str | None = None  # absorption between the galaxies, such as "inoue2014"

    def digest(self) -> str:
        """SHA-256 of the content."""
        named = [
            self.physics, self.ssp, dict(self.training), list(self.citations),
            self.birth_cloud_age, self.igm,
        ]  # fmt: skip
        sha = hashlib.sha256(json.dumps(named, sort_keys=True).encode())
        for curve in self.curves:
            for values in (curve.wave, curve.trans):
                sha.update(np.ascontiguousarray(values, np.float64).tobytes() + b"|")
        return sha.hexdigest()

    def __hash__(self) -> int:
        return hash((self.physics, self.ssp, len(self.curves)))
