"""A lock that one process holds on a file name, and that does not outlive the process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

Owner = Mapping[str, Any]
"""``host``, ``pid`` and ``since`` (ISO 8601) of a process, and what it added; may be empty."""


class Held(Exception):
    """Another process has the lock; `owner` says which, as far as it is known."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(describe(owner))
        self.owner = owner


def describe(owner: Owner) -> str:
    """An owner in words: "process 17 on the host x since 2025-01-01T00:00:00+00:00"."""
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('since')}"


class Lock:
    """An exclusive lock, from the moment that it is made until `release`.

    The operating system holds it (``flock``) and lets it go when the process ends, however it ends.
    The file says who has it.  Where the file system has no such locks, the file itself is the lock:
    one that a dead process of this host left behind is taken over, one of another host is not.
    Network file systems mounted with locks that are local to each host see processes of the same
    host only.

    Attributes
    ----------
    left: who had the lock and ended without giving it back; None if nobody did.
    """

    def __init__(self, path: str | Path, **note: str) -> None:
        """Take the lock; `note` is told to others beside the host, process and time.

        Raises Held if another process, or another lock of this one, has it, and OSError if the
        file cannot be made.
        """
        self.path = Path(path)
        self.left: Owner | None = None
        self.owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            **note,
        }
        self._handle: int | None = None
        while self._handle is None:
            self._handle = self._try()
        try:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, json.dumps(self.owner).encode(), 0)
        except OSError:
            self.release()
            raise

    def _try(self) -> int | None:
        """The open file with the lock, or None if it vanished meanwhile."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(self.path, flags, 0o666)
        try:
            if fcntl is None:
                raise OSError("no such locks")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read(handle)
            os.close(handle)
            raise Held(owner) from None
        except OSError:
            return self._by_file(handle)
        except BaseException:
            os.close(handle)
            raise
        if not _is_at(handle, self.path):  # its last owner removed it after we had opened it
            os.close(handle)
            return None
        self.left = _read(handle) or None
        return handle

    def _by_file(self, handle: int) -> int | None:
        """The same without locks of the system: who wrote the file has it."""
        owner = _read(handle)
        os.close(handle)
        if owner and not (owner.get("host") == self.owner["host"] and _is_dead(owner.get("pid"))):
            raise Held(owner)
        self.left = owner or None
        self.path.unlink(missing_ok=True)
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None

    def release(self) -> None:
        """Give the lock back and remove the file."""
        if self._handle is None:
            return
        if _is_at(self._handle, self.path):
            self.path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = None


def _read(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_at(handle: int, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(handle)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _is_dead(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
