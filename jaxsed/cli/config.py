"""``jaxsed config``: about configurations."""

from __future__ import annotations

import typer

from jaxsed.cli.app import GROUP

config = typer.Typer(
    help="Configurations of `jaxsed fit`.",
    no_args_is_help=True,
    **GROUP,
)


@config.callback()
def _group() -> None:
    """Configurations of `jaxsed fit`."""


@config.command()
def schema() -> None:
    """Print the JSON schema of a configuration."""
    import json

    from jaxsed.catalog.config import config_schema

    typer.echo(json.dumps(config_schema(), indent=1))
