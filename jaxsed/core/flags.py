"""Flags of rows in words: each bit has a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


def flag_text(flag: int, texts: Mapping[Any, str]) -> str:
    """A flag in words, '; ' between them; '' for 0."""
    return "; ".join(text for bit, text in texts.items() if int(flag) & bit)


def flag_counts(flags: Iterable[int], texts: Mapping[Any, str]) -> list[tuple[str, int]]:
    """How many rows have each bit, by its text; the most frequent first."""
    counts = Counter(text for flag in flags for bit, text in texts.items() if int(flag) & bit)
    return counts.most_common()
