"""Text files: configurations and tables."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from jaxsed.io.limits import megabytes, one_line, regular_file

LARGEST_TOML = 2**18
"""Bytes of a configuration."""

MOST_DOTS = 200
"""In a line of a configuration: the time that a dotted key takes grows as its square."""

DEEPEST_TOML = 20
"""Lists and tables in one another, which a configuration has at most."""


def read_text(path: str | Path, largest: int = LARGEST_TOML) -> str:
    """A file in UTF-8, with or without a byte order mark.

    Raises FileNotFoundError, and ValueError for other encodings, larger files, folders and devices;
    the message names the file.
    """
    path = regular_file(path)
    size = path.stat().st_size
    if size > largest:
        raise ValueError(f"{path}: {megabytes(size)}, expected at most {megabytes(largest)}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ValueError(
            f"{path}: not a text file in UTF-8 (byte {problem.start} is "
            f"{problem.object[problem.start]:#04x})"
        ) from None
    except OSError as problem:
        raise ValueError(f"{path}: cannot be read ({problem.strerror})") from problem


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The content of a text in TOML; ValueError in one line that begins with `source`."""
    if len(text) > LARGEST_TOML:
        raise ValueError(f"{source}: longer than {LARGEST_TOML} characters")
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MOST_DOTS:
            raise ValueError(f"{source}: more than {MOST_DOTS} dots in line {number}")
    try:
        found = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as problem:
        raise ValueError(f"{source}: not valid TOML: {one_line(problem)}.") from None
    except (RecursionError, ValueError, OverflowError) as problem:
        reason = "too deeply nested" if isinstance(problem, RecursionError) else one_line(problem)
        raise ValueError(f"{source}: not valid TOML: {reason}.") from None
    level: list[Any] = [found]
    for _ in range(DEEPEST_TOML):
        level = [
            item for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list)
        ]  # fmt: skip
        if not level:
            return found
    raise ValueError(f"{source}: not valid TOML: too deeply nested.")
