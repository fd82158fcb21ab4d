"""A line that says how far a prediction is."""

from __future__ import annotations

from collections.abc import Callable


def counter(wanted: bool, things: str) -> Callable[[int, int], None] | None:
    """A function of (done, in all) that rewrites a line on standard error, or None."""
    if not wanted:
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return lambda done, n: console.print(f"{done} of {n} {things}", end="\r" if done < n else "\n")
