"""Outputs: checked before the work that they are of, and tables written whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from jaxsed.core.errors import JaxsedError
from jaxsed.io import files

if TYPE_CHECKING:
    from astropy.table import Table

TABLE_FORMATS = {".ecsv": "ascii.ecsv", ".fits": "fits", ".csv": "ascii.csv"}


def check_writable(path: Path) -> None:
    """Raise JaxsedError where a file of this name could not be written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise JaxsedError(f"cannot write {str(path)!r}: there is no folder {str(folder)!r}.")
    if path.is_dir():
        raise JaxsedError(f"cannot write {str(path)!r}: it is a folder.")
    if path.exists() and not path.is_file():
        raise JaxsedError(f"cannot write {str(path)!r}: it is not a regular file.")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise JaxsedError(f"cannot write {str(path)!r}: no permission.")


def check_folder(path: Path) -> None:
    """Raise JaxsedError where files could not be written to a folder, which need not exist yet."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise JaxsedError(f"cannot write to {str(path)!r}: {str(existing)!r} is not a folder.")
    if not os.access(existing, os.W_OK):
        raise JaxsedError(f"cannot write to {str(path)!r}: no permission in {str(existing)!r}.")


def check_table_path(path: Path) -> None:
    """Raise JaxsedError where a summary table could not be written there."""
    if path.suffix.lower() not in TABLE_FORMATS:
        raise JaxsedError(
            f"the table {str(path)!r}: its name must end with one of {', '.join(TABLE_FORMATS)}."
        )
    check_writable(path)


def check_table_holds(path: Path, name: str, ids: NDArray[Any]) -> None:
    """Raise JaxsedError where the format of a summary table cannot hold the id column."""
    from astropy.table import Table

    suffix = path.suffix.lower()
    buffer: Any = io.BytesIO() if suffix == ".fits" else io.StringIO()
    try:
        Table({name: ids}).write(buffer, format=TABLE_FORMATS[suffix])
    # astropy's writers raise nearly anything for what they cannot write
    except Exception as error:
        raise JaxsedError(
            f"the table {str(path)!r}: {suffix} cannot hold the id column {name!r} ({error}). Give "
            "a table that ends with .ecsv."
        ) from error


def save_table(table: Table, path: Path) -> None:
    """Write a table, whole or not at all, in the format that the suffix names."""
    with files.replacing(path) as new:
        table.write(new, format=TABLE_FORMATS[path.suffix.lower()], overwrite=True)
