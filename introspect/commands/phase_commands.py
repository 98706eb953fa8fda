"""The commands about phase files, as the command line has them."""

from __future__ import annotations

from typing import Annotated

import typer

from introspect.commands.options import Json


def phases(
    schema: Annotated[
        bool, typer.Option("--schema", help="Every key of a phase file: values, default, meaning.")
    ] = False,
    json: Json = False,
) -> None:
    """List the phases: what each does, offers and requires."""
    from introspect.commands.phases import phases_command, schema_command

    raise typer.Exit(schema_command(json) if schema else phases_command(json))


def new(
    name: Annotated[str, typer.Argument(help="The name of the phase; NAME.yaml is written here.")],
    parent: Annotated[
        str | None,
        typer.Option("--from", help="The name or path of a phase that it extends.", metavar="PHASE"),
    ] = None,
) -> None:
    """Write a commented phase of one's own, which runs at once."""
    from introspect.commands.new import new_command

    raise typer.Exit(new_command(name, parent))
