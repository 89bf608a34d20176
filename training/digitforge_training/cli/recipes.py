"""The command ``digitforge recipes``, and the completion of recipe names."""

from __future__ import annotations

import json

import click
from click.shell_completion import CompletionItem

from digitforge_client.common.command import Group
from digitforge_training.recipes import FIXED, RECIPES, resolve, written
from digitforge_training.recipes.descriptions import field_descriptions


def complete_recipe(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The recipes that a shell suggests."""
    return [
        CompletionItem(name, help=recipe.summary) for name, recipe in RECIPES.items() if name.startswith(incomplete)
    ]


@click.group(cls=Group, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def recipes(context: click.Context, as_json: bool) -> None:
    """List the recipes. `digitforge recipes show NAME` describes one.

    \b
    Examples:
      digitforge recipes
      digitforge recipes show forge
    """
    if context.invoked_subcommand is not None:
        return
    if as_json:
        click.echo(json.dumps({key: recipe.as_dict() for key, recipe in RECIPES.items()}, indent=2))
        return
    width = max(map(len, RECIPES))
    for recipe in RECIPES.values():
        click.echo(f"{recipe.name:<{width}}  {recipe.summary}")


@recipes.command()
@click.argument("name", shell_complete=complete_recipe)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the notes of recipe NAME and the fields that --set overrides.

    \b
    Examples:
      digitforge recipes show forge
      digitforge recipes show mlp --json
    """
    recipe = resolve(name)
    fields = recipe.as_dict()
    if as_json:
        click.echo(json.dumps(fields, indent=2))
        return
    click.echo(f"{recipe.name}: {recipe.summary}")
    for note in recipe.notes:
        click.echo("\n" + click.wrap_text(note, initial_indent="  * ", subsequent_indent="    "))
    meanings = field_descriptions()
    click.echo()
    for field, value in fields.items():
        if field not in FIXED:
            click.echo(f"{field:<28}{written(value) or '(none)'}")
            click.echo(click.wrap_text(meanings[field], initial_indent="    ", subsequent_indent="    "))
