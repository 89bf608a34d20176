"""The command ``digitforge``: finds its subcommands by entry point and imports one only when it is used."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
import threading
import time
from importlib import metadata
from types import FrameType
from typing import Any, Final, Self

import click

from digitforge_client.common.extras import needs_extra
from digitforge_client.errors import DigitforgeError, did_you_mean

ENTRY_POINT_GROUP = "digitforge.commands"
#: Comes when the terminal is closed; None on Windows.
HANGUP: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)
#: What ends a command in order: Ctrl-C, a service manager or container engine, a closed terminal.
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else []))
#: Within this time, a second signal is the first one, sent by two: `timeout` tells a process and its group.
_ECHO_S: Final = 1.0


class LazyGroup(click.Group):
    """A group whose commands are entry points, loaded when they are asked for."""

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        return {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entry_points().get(cmd_name)
        return None if entry is None else entry.load()

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does; where there is no such command, the nearest is named."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(error.message.removesuffix(".") + hint, ctx=ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; a missing optional dependency becomes an error that names the extra."""
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
    """Import *module* with standard error held back, and shown only if the import fails.

    TensorFlow writes lines of its own while it is imported, before any log level counts.
    """
    set_tensorflow_defaults()
    if module in sys.modules:
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            importlib.import_module(module)
        except Exception:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def set_tensorflow_defaults() -> None:
    """Choose what TensorFlow reads from the environment when it is imported, unless the user has chosen."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes on missing GPUs say nothing of digits
    # oneDNN's convolutions, which TensorFlow leaves off on processors without AVX-512: 1.2 times the steps of `forge`
    # in the same time (tests/benchmarks).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="digitforge", prog_name="digitforge")
def digitforge() -> None:
    """Synthetic handwritten digits for your classifier: train, serve, request, measure.

    Start with `digitforge demo`. Results go to standard output, everything else to standard error.

    Exit status: 0 done, 1 failed, 2 wrong arguments, 3 the server could not answer, 4 data cannot be had, read or
    written, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM), 129 hung up (its terminal was closed).
    """


class _Interrupts:
    """Has SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, as Ctrl-C does; a second signal ends at once.

    Attributes:
        number: of the signal that came; None before.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def __enter__(self) -> Self:
        handlers = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
        if threading.current_thread() is not threading.main_thread():
            handlers = {}  # no other thread may set any
        # What nohup or a shell has ignored stays ignored.
        usual = (signal.SIG_DFL, signal.default_int_handler)
        self._before = {number: handler for number, handler in handlers.items() if handler in usual}
        for number in self._before:
            signal.signal(number, self._told)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._lost
        return self

    def __exit__(self, *_: object) -> None:
        if self.number is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            sys.unraisablehook = self._hook

    def _told(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number, self._since = number, time.monotonic()
            if number == HANGUP:
                for terminal in self._terminals:  # writing there would fail
                    os.dup2(os.open(os.devnull, os.O_WRONLY), terminal)
            raise KeyboardInterrupt
        # The shell and the kernel both tell of a closed terminal; systemd may do so after SIGTERM.
        if number != HANGUP and time.monotonic() - self._since > _ECHO_S:
            os._exit(128 + number)

    def _lost(self, unraisable: Any) -> None:
        """Send a signal again whose exception was lost, because it struck inside a finalizer or a callback."""
        if self.number is None or unraisable.exc_type is not KeyboardInterrupt:
            self._hook(unraisable)
            return
        number, self.number = self.number, None
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()


def main() -> None:
    """Run the command and turn every deliberate error into one line and its documented exit status."""
    set_tensorflow_defaults()
    with _Interrupts() as interrupts:
        try:
            result = digitforge.main(standalone_mode=False)
            status = result if isinstance(result, int) else 0
        except click.exceptions.Abort:  # click's word for Ctrl-C
            click.echo("digitforge: interrupted", err=True)
            status = 128 + (interrupts.number or signal.SIGINT)  # as shells have it
        except click.ClickException as error:
            error.show()
            status = error.exit_code
        except DigitforgeError as error:
            click.echo(f"digitforge: {error}", err=True)
            status = error.exit_status
        except BrokenPipeError:  # the reader of our output went away, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
