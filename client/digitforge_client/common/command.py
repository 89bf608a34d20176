"""The command ``digitforge``. It finds its subcommands by entry point and imports each one on first use."""

from __future__ import annotations

import importlib
import logging
import os
import platform
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from digitforge_client.common import streams
from digitforge_client.common.extras import needs_extra
from digitforge_client.common.interrupts import SignalHandlers
from digitforge_client.errors import DigitforgeError, did_you_mean

ENTRY_POINT_GROUP = "digitforge.commands"
log = logging.getLogger("digitforge")


class Group(click.Group):
    """A group whose help shows the whole first sentence of each command. click cuts it to one line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(limit=1000)) for name, command in commands.items() if command]
            )


class LazyGroup(Group):
    """A group whose commands are entry points. It loads each one on first use."""

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        return {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entry_points().get(cmd_name)
        if entry is None:
            return None
        command: click.Command = entry.load()
        _add_common_options(command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Like click's method, but suggest a similar name for an unknown command."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(error.message.removesuffix(".") + hint, ctx=ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. If an optional dependency is missing, the error names its extra."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError:
            entry = self._entry_points().get(ctx.invoked_subcommand or "")
            if entry is None:
                raise
            component = entry.module.partition(".")[0].removeprefix("digitforge_")
            with needs_extra(component, f"`digitforge {entry.name}`"):
                raise


def _add_common_options(command: click.Command) -> None:
    """Add ``--quiet`` and ``--verbose`` to a command and its subcommands, unless they have options of this name."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _add_common_options(child)
        if not command.invoke_without_command:
            return
    names = {name for parameter in command.params for name in parameter.opts}
    for name, callback, text in (
        ("quiet", _be_quiet, "Print only results and errors."),
        ("verbose", _be_verbose, "Print versions and log messages, and after an error the place in the code."),
    ):
        if f"--{name}" not in names:
            short = [f"-{name[0]}"] if f"-{name[0]}" not in names else []
            option = click.Option(
                [f"--{name}", *short], is_flag=True, expose_value=False, is_eager=True, callback=callback, help=text
            )
            command.params.append(option)


def _be_quiet(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:  # `main` prints errors after the context is closed
        context.with_resource(_standard_error_hidden())


@contextmanager
def _standard_error_hidden() -> Iterator[None]:
    with Path(os.devnull).open("w", encoding="utf-8") as null, redirect_stderr(null):
        yield


def _be_verbose(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        log.setLevel(logging.DEBUG)
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        click.echo(
            f"digitforge {metadata.version('digitforge')}, Python {platform.python_version()}, {platform.platform()}",
            err=True,
        )


def import_quietly(module: str) -> None:
    """Import *module* and hide its output on standard error, unless the import fails or the command is verbose.

    TensorFlow writes log lines during its import, before any log level applies. Also sets the environment variables
    that TensorFlow reads then, unless the user has set them.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hides TensorFlow's notes on missing GPUs
    # TensorFlow does not use oneDNN on processors without AVX-512. With it, `forge` trains 1.2 times as fast
    # (tests/benchmarks).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if module in sys.modules:
        return
    if log.isEnabledFor(logging.DEBUG):
        importlib.import_module(module)
        return
    with tempfile.TemporaryFile() as captured:
        try:
            with streams.standard_error_into(captured):
                importlib.import_module(module)
        except Exception:
            captured.seek(0)
            with suppress(OSError):  # standard error is closed or full
                os.write(2, captured.read())
            raise


@contextmanager
def resumable(kept: Callable[[], str]) -> Iterator[None]:
    """Say how to continue if a KeyboardInterrupt ends the block.

    Args:
        kept: says what is kept and that the same command continues, for example ``the same command continues``.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nstopped; {kept()}", err=True)
        raise


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="digitforge", prog_name="digitforge")
def digitforge() -> None:
    """Synthetic handwritten digits for your classifier: train, serve, request, measure.

    Start with `digitforge demo`. Results go to standard output, everything else to standard error.

    \b
    Examples:
      digitforge demo
      digitforge sample --n 1000 --out digits.npz
      digitforge sample --help

    \b
    Environment variables:
      DIGITFORGE_SERVER             address of the server, instead of --server
      DIGITFORGE_DATA_DIR           folder with the four MNIST files
      DIGITFORGE_CACHE_DIR          folder for downloads
                                    [default: ~/.cache/digitforge]
      DIGITFORGE_MIRRORS            URLs to download MNIST from
      DIGITFORGE_INCEPTION_MIRRORS  URLs to download the Inception network from
      NO_COLOR                      if set, output has no colors
      _DIGITFORGE_COMPLETE          bash_source, zsh_source or fish_source:
                                    print the shell's completion script

    Exit status: 0 success, 1 failure, 2 invalid arguments, 3 the server could not answer, 4 data could not be found,
    read or written, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM), 129 the terminal was closed (SIGHUP).
    """


def main() -> None:
    """Run the command. A `DigitforgeError` becomes one line and its exit status."""
    streams.prepare()
    with SignalHandlers() as signals:
        log.setLevel(logging.NOTSET)
        try:
            result = digitforge.main(prog_name="digitforge", standalone_mode=False)
            sys.stdout.flush()  # raises an error if standard output is full
            status = result if isinstance(result, int) else 0
        except click.exceptions.Abort:  # click raises it for KeyboardInterrupt
            click.echo("digitforge: interrupted", err=True)
            status = 128 + (signals.number or signal.SIGINT)  # the convention of shells
            signals.exit_status = status if signals.number else None
        except click.ClickException as error:
            error.show()
            status = error.exit_code
        except DigitforgeError as error:
            if log.level == logging.DEBUG:
                traceback.print_exception(error)
            click.echo(f"digitforge: {error}", err=True)
            status = error.exit_status
        except BrokenPipeError:  # the reader of our output ended, for example `| head`
            status = 1
    try:
        sys.stdout.flush()
    except (DigitforgeError, BrokenPipeError):  # Python would write the rest once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or 1
    sys.exit(status)


if __name__ == "__main__":
    main()
