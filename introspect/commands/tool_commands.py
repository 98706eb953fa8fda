"""The signature of `introspect tools`, which lists the tools and calls one by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from introspect.commands.options import Device, Dtype, Json, ModelOrTiny, Revision
from introspect.commands.start import refuse_stripped_docstrings


def tools(
    model: ModelOrTiny,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The tool to call; also FILE.py:function.")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Its arguments; a list as JSON or key by key."),
    ] = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    text: Annotated[
        str | None, typer.Option(help="The processed text, for tools that measure one.", metavar="TEXT")
    ] = None,
    json: Json = False,
) -> None:
    """List the tools that a phase can give to a model, or call one by hand."""
    if name is None:
        from introspect.commands.tools import tools_command

        raise typer.Exit(tools_command(json))
    refuse_stripped_docstrings()
    from introspect.commands.tool_call import call_command

    options = {"model.id": model, "model.revision": revision, "model.device": device, "model.dtype": dtype}
    settings = {key: value for key, value in options.items() if value is not None}
    raise typer.Exit(call_command(name, given or (), settings, text, json))
