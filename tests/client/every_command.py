"""All commands of digitforge, with their options."""

from __future__ import annotations

from collections.abc import Iterator

import click

from digitforge_client.common.command import digitforge


def _leaves(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                yield from _leaves(child, (*words, name))
    yield words, command


#: Words of a command line => the command. Groups are included.
COMMANDS = dict(_leaves(digitforge, ()))


def options(command: click.Command) -> dict[str, click.Option]:
    """The visible options of *command*, by each of their names."""
    found = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    return {name: one for one in found for name in (*one.opts, *one.secondary_opts)}
