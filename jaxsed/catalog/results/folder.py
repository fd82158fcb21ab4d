"""The folder of an unfinished run, ``RUN.h5.parts``: its header, and whether it is in the way.

``run.json`` says which run the parts are of, and ``lock`` which process works on it (see
`jaxsed.io.locks`).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from jaxsed.core.errors import JaxsedError
from jaxsed.io.locks import Owner, describe
from jaxsed.io.outputs import check_writable

HEADER, LOCK = "run.json", "lock"
RUN_SCHEMA = "jaxsed-run 2"
NAMES = re.compile(r"run\.json|lock|(part|chunk)_\w+\.h5|\..*\.tmp|(run\.json|chunk_\w+)\.new")
"""Of the files that runs leave in the folder."""


def parts_folder(output: Path) -> Path:
    """Where the parts of an unfinished run lie."""
    return output.with_name(output.name + ".parts")


def is_begun(parts: Path) -> bool:
    return (parts / HEADER).is_file()


def _is_ours(parts: Path) -> bool:
    """Whether a folder is that of a run: by what its header says, or as it holds nothing else."""
    if parts.is_symlink() or not parts.is_dir():
        return False
    if isinstance(read_header(parts), dict):
        return True
    return all(NAMES.fullmatch(entry.name) for entry in parts.iterdir())


def read_header(parts: Path) -> dict[str, Any] | str | None:
    """The header of a run, None where there is none, or what is wrong with it."""
    try:
        found = json.loads((parts / HEADER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError):
        return "is damaged"
    fields = {"schema": str, "run": str, "replaces": bool, "identity": dict}
    if not isinstance(found, dict) or found.get("schema") != RUN_SCHEMA:
        return "is not that of a run of this version of jaxsed"
    if not all(isinstance(found.get(name), kind) for name, kind in fields.items()):
        return "is damaged"
    return found


def check_output(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise JaxsedError, before any work, where the results could not be written in the end.

    Whether the name is free is known only to `ResultWriter`, which holds the lock.
    """
    if resume and overwrite:
        raise JaxsedError("--resume continues a run and --overwrite starts it again: choose one.")
    if output.suffix.lower() not in (".h5", ".hdf5"):
        raise JaxsedError(f"the output {str(output)!r} is HDF5: its name must end with .h5.")
    check_writable(output)
    parts = parts_folder(output)
    if os.path.lexists(parts) and not _is_ours(parts):
        raise JaxsedError(f"{str(parts)!r} is in the way and was not made by jaxsed: move it.")


def check_free(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise JaxsedError where results or an unfinished run are there that must not be touched."""
    parts = parts_folder(output)
    if resume:
        if isinstance(wrong := read_header(parts), str):
            raise JaxsedError(
                f"cannot resume {str(output)!r}: {str(parts / HEADER)!r} {wrong}. Start again "
                "with --overwrite."
            )
        return
    if overwrite:
        return
    if is_begun(parts):
        raise JaxsedError(
            f"an unfinished run of {str(output)!r} is there: --resume continues it, --overwrite "
            "starts it again."
        )
    if output.exists():
        raise JaxsedError(
            f"the output {str(output)!r} exists: --overwrite replaces it, --resume keeps what it "
            "has if it is the same run."
        )


def in_use(output: Path, owner: Owner) -> str:
    """Why an output cannot be taken, in words."""
    return (
        f"{str(output)!r} is in use by {describe(owner)}: wait until it ends, stop it, or give "
        "another output."
    )
