"""Options of a command that stand for keys of an experiment; their help is the keys' own.

They are made when the command is called, so that no other command waits for the settings.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import click
from typer.core import TyperCommand, TyperOption

_GIVEN = "simulations.cli.key_options"
"""Name in a context's ``meta`` of the values that were given."""


class KeyCommand(TyperCommand):
    """A command with options for keys besides those of its function."""

    keys: Sequence[str] = ()
    """Dotted names of the keys; ``server.rounds`` is ``--rounds``."""
    other_defaults: ClassVar[Mapping[str, str]] = {}
    """Defaults that are not the experiment's, as text for the help."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, those of the keys first."""
        return [*self._key_options(), *super().get_params(ctx)]

    def _key_options(self) -> list[click.Parameter]:
        from fedsi.experiment.keys import keys_of

        keys = (section.keys[0] for name in self.keys for section in keys_of(name))
        return [
            TyperOption(
                param_decls=[_option(key.name), key.name.replace(".", "__")],
                type=str,
                metavar=_metavar(key.allowed),
                help=f"{key.meaning.replace('``', '')} "
                f"(default: {self.other_defaults.get(key.name, key.default)})",
                expose_value=False,
                callback=_keep,
            )
            for key in keys
        ]


def given_keys(ctx: click.Context) -> dict[str, Any]:
    """Return the keys that were given, with their values as ``--set`` reads them."""
    from fedsi.experiment import parse_overrides

    given = ctx.meta.get(_GIVEN, {})
    return parse_overrides(f"{key}={text}" for key, text in given.items())


def _option(key: str) -> str:
    return f"--{key.rpartition('.')[2].replace('_', '-')}"


def _metavar(allowed: str) -> str:
    """Return the choices of a key but no choice at all; one word for numbers."""
    if allowed.startswith("``"):
        return allowed.replace("``", "").replace(", ", "|").removeprefix("none|")
    return "NUMBER"


def _keep(ctx: click.Context, option: click.Parameter, text: str | None) -> None:
    if text is not None:
        ctx.meta.setdefault(_GIVEN, {})[str(option.name).replace("__", ".")] = text
