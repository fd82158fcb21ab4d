"""The error that a user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager


class JaxsedError(ValueError):
    """A problem with a file, a configuration or an option, worded for the person who can mend it.

    The command line prints its text and exits with 1; anything else that is raised is a defect.
    """


@contextmanager
def user_errors() -> Iterator[None]:
    """What is wrong with a file or an array is told in words, without a traceback."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise JaxsedError(str(error)) from error


def nearest(name: str, known: list[str] | tuple[str, ...], count: int = 3) -> str:
    """' Did you mean ...?' with the known names most like `name`, or an empty string."""
    from difflib import get_close_matches

    lower = {k.lower(): k for k in known}
    close = [lower[m] for m in get_close_matches(name.lower(), list(lower), count, cutoff=0.5)]
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
