"""Commands that are imported when they are called: `--version`, `--help` and light commands start without torch."""

import importlib
from collections.abc import Mapping
from typing import Any

import click
import typer
from typer.core import TyperGroup

Commands = Mapping[str, tuple[str, str]]  # name -> ("module:function or Typer", one line of help)


def lazy_group(commands: Commands) -> type[TyperGroup]:
    """Return a group class whose commands are named here and imported on use.

    Help lists the one-line texts given here; the imported command's own ``--help`` is the full one.
    """

    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.commands = {name: click.Command(name, help=line) for name, (_, line) in commands.items()}

        def list_commands(self, ctx: click.Context) -> list[str]:
            del ctx
            return list(commands)

        def resolve_command(
            self, ctx: click.Context, args: list[str]
        ) -> tuple[str | None, click.Command | None, list[str]]:
            name, _, rest = super().resolve_command(ctx, args)
            return name, load(name, commands[name][0]) if name else None, rest

    return LazyGroup


def load(name: str, target: str) -> click.Command:
    """Import ``module:attribute``: a typer application becomes a group, a function one command called ``name``."""
    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name = name
        return group
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    single.command(name)(found)
    return typer.main.get_command(single)
