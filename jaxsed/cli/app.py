"""The command ``jaxsed`` itself, which the other files add their commands to."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jaxsed import __version__

GROUP: dict[str, Any] = {"pretty_exceptions_enable": False, "rich_markup_mode": None}
"""Options of every group of commands."""

app = typer.Typer(
    help="Fit galaxy SEDs: posteriors of mass, star formation, metallicity, age and dust.",
    no_args_is_help=True,
    **GROUP,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jaxsed {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="and exit")
    ] = False,
) -> None:
    """Options before the command."""
