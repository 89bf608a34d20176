"""The command ``digitforge``. It finds its subcommands by entry point and imports each one on first use."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import click

from digitforge_client.common import streams
from digitforge_client.common.extras import needs_extra
from digitforge_client.common.interrupts import SignalHandlers
from digitforge_client.errors import DigitforgeError, did_you_mean

ENTRY_POINT_GROUP = "digitforge.commands"


class LazyGroup(click.Group):
    """A group whose commands are entry points. It loads each one on first use."""

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        return {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entry_points().get(cmd_name)
        return None if entry is None else entry.load()

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
            extra = entry.module.partition(".")[0].removeprefix("digitforge_")
            with needs_extra(extra, f"`digitforge {entry.name}`"):
                raise


def import_quietly(module: str) -> None:
    """Import *module* and hide its output on standard error, unless the import fails.

    TensorFlow writes log lines during its import, before any log level applies.
    """
    set_tensorflow_defaults()
    if module in sys.modules:
        return
    try:
        saved = os.dup(2)
    except OSError:  # standard error is closed
        importlib.import_module(module)
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            importlib.import_module(module)
        except Exception:
            captured.seek(0)
            os.write(saved, captured.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def set_tensorflow_defaults() -> None:
    """Set the environment variables that TensorFlow reads during its import, unless the user has set them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hides TensorFlow's notes on missing GPUs
    # TensorFlow does not use oneDNN on processors without AVX-512. With it, `forge` trains 1.2 times as fast
    # (tests/benchmarks).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


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

    Exit status: 0 success, 1 failure, 2 invalid arguments, 3 the server could not answer, 4 data could not be found,
    read or written, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM), 129 the terminal was closed (SIGHUP).
    """


def main() -> None:
    """Run the command. A `DigitforgeError` becomes one line and its exit status."""
    set_tensorflow_defaults()
    streams.prepare()
    with SignalHandlers() as signals:
        try:
            result = digitforge.main(standalone_mode=False)
            sys.stdout.flush()  # raises an error if standard output is full
            status = result if isinstance(result, int) else 0
        except click.exceptions.Abort:  # click raises it for KeyboardInterrupt
            click.echo("digitforge: interrupted", err=True)
            status = 128 + (signals.number or signal.SIGINT)  # the convention of shells
        except click.ClickException as error:
            error.show()
            status = error.exit_code
        except DigitforgeError as error:
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
