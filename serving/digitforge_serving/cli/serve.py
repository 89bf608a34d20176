"""The command ``digitforge serve``."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from digitforge_client import contract
from digitforge_client.common.extras import check_extras
from digitforge_client.common.interrupts import ENDING_SIGNALS, HANGUP
from digitforge_client.common.shipped import shipped_models
from digitforge_client.errors import InvalidInputError
from digitforge_serving.api.request_log import SLOW_S
from digitforge_serving.cli.logs import configure_logging
from digitforge_serving.cli.startup import find_gpus, import_tensorflow, sending_spans
from digitforge_serving.config.options import (
    PROMETHEUS_PATH,
    BatchingOptions,
    ModelSource,
    ServerOptions,
    parse_channel_arguments,
    read_batching_options,
    read_metrics_path,
    read_model_config,
    read_tls,
)
from digitforge_serving.server import Server

if TYPE_CHECKING:
    from digitforge_serving.page.server import PageServer

log = logging.getLogger("digitforge.serving")

#: Options that mean something with ``--page-for``.
_PAGE_FLAGS = {
    *("model_name", "monitoring_config_file", "host", "grace_seconds"),
    *("rest_api_port", "rest_api_max_body_mib", "rest_api_receive_timeout_in_ms"),
}
_POLL_S = 0.5  # seconds between checks for a signal
_TRIM_S = 10.0
_FORCE_EXIT_S = 0.5  # seconds after the grace period; then the process exits even if TensorFlow still computes


def flag(name: str, *also: str, **attributes: Any) -> Any:
    """An option that accepts TensorFlow Serving's spelling (``--model_name``) and ours (``--model-name``)."""
    spellings = dict.fromkeys([*also, f"--{name.replace('_', '-')}", f"--{name}"])
    return click.option(*spellings, name, show_default=attributes.pop("show_default", True), **attributes)


def switch(name: str, default: bool, **attributes: Any) -> Any:
    """A boolean option with an optional value: ``--enable_batching`` or ``--enable_batching=false``."""
    return flag(name, type=bool, is_flag=False, flag_value=True, default=default, metavar="[true|false]", **attributes)


def without_effect(name: str, reason: str, **attributes: Any) -> Any:
    """An option that only TensorFlow Serving needs. Accepted, so that one command line starts both servers."""
    return flag(name, expose_value=False, show_default=False, help=f"No effect: {reason}", **attributes)


@click.command()
@flag(
    "model_base_path",
    "--model",
    type=click.Path(path_type=Path),
    help="Folder that contains the model's versions: 1, 2, …",
    show_default="the shipped model",
)
@flag("model_name", default=contract.MODEL_NAME, help="Name that clients use for the model.")
@flag(
    "model_config_file",
    type=click.Path(path_type=Path),
    help="File that lists several models (ModelServerConfig in protobuf text), instead of the two options above.",
)
@flag(
    "model_config_file_poll_wait_seconds",
    type=click.FloatRange(min=0),
    default=ServerOptions.model_config_file_poll_wait_seconds,
    help="Seconds between checks of the model config file. 0: read it only at startup.",
)
@flag("port", type=click.IntRange(0, 65535), default=contract.GRPC_PORT, help="Port for gRPC. 0: any free port.")
@flag("rest_api_port", type=click.IntRange(0, 65535), default=0, help="Port for REST. 0: no REST.", show_default="off")
@flag(
    "rest_api_timeout_in_ms",
    type=click.IntRange(min=0),
    default=ServerOptions.rest_api_timeout_in_ms,
    help="Milliseconds that a REST request may take, including time in the queue. 0: no limit.",
)
@flag(
    "rest_api_max_body_mib",
    type=click.IntRange(min=1),
    default=ServerOptions.rest_api_max_body_mib,
    help="Largest body of a REST request in MiB, after decompression.",
)
@flag(
    "rest_api_receive_timeout_in_ms",
    type=click.IntRange(min=1),
    default=ServerOptions.rest_api_receive_timeout_in_ms,
    help="Milliseconds in which a REST client must send a request's headers, and again its body. Also ends idle "
    "connections.",
)
@switch("rest_api_enable_cors_support", default=False, help="Let web pages from other origins use the REST API.")
@flag(
    "monitoring_config_file",
    type=click.Path(path_type=Path),
    help="File that enables metrics on the REST port (MonitoringConfig in protobuf text).",
)
@flag("grpc_socket_path", type=click.Path(path_type=Path), help="Also listen on this Unix socket.")
@flag(
    "ssl_config_file",
    type=click.Path(),
    help="File with the key and certificates for TLS over gRPC (SSLConfig in protobuf text).",
)
@flag(
    "grpc_channel_arguments", default="", help="Options for the gRPC library: key=value,key=value.", show_default=False
)
@flag("host", default="127.0.0.1", help="Address to listen on. 0.0.0.0: all interfaces.")
@flag(
    "grpc_max_threads",
    type=click.IntRange(min=1),
    help="Maximum number of requests computed at the same time without batching.",
    show_default="2 per core",
)
@switch("enable_batching", default=False, help="Merge concurrent requests into batches.")
@flag(
    "batching_parameters_file",
    type=click.Path(path_type=Path),
    help="File with batching settings (BatchingParameters in protobuf text). Needs --enable-batching.",
)
@flag(
    "max_requests",
    type=click.IntRange(min=1),
    default=ServerOptions.max_requests,
    help="Maximum number of requests in flight, including those that wait. The server rejects further requests.",
)
@flag(
    "file_system_poll_wait_seconds",
    type=click.FloatRange(min=0),
    default=ServerOptions.file_system_poll_wait_seconds,
    help="Seconds between checks for new versions. 0: check only at startup.",
)
@switch(
    "allow_version_labels_for_unavailable_models",
    default=False,
    help="Accept labels of versions that are not loaded yet.",
)
@switch("enable_model_warmup", default=True, help="Replay a version's warm-up requests before it starts to serve.")
@switch(
    "enable_serialization_as_tensor_content",
    default=ServerOptions.enable_serialization_as_tensor_content,
    help="Send gRPC replies as raw bytes instead of typed fields.",
)
@flag("saved_model_tags", default="serve", help="Tags of the graph to load, separated by commas.")
@flag(
    "tensorflow_intra_op_parallelism",
    type=click.IntRange(min=0),
    default=0,
    help="Threads for one operation. 0: one per core.",
)
@flag(
    "tensorflow_inter_op_parallelism",
    type=click.IntRange(min=0),
    default=0,
    help="Operations that run at the same time. 0: one per core.",
)
@flag(
    "grace_seconds",
    type=click.FloatRange(min=0),
    default=ServerOptions.grace_seconds,
    help="Seconds that requests in flight may take to finish after SIGTERM.",
)
@without_effect("num_load_threads", "versions always load beside requests.", type=click.IntRange(min=0))
@without_effect(
    "max_num_load_retries",
    "a version that cannot be loaded is tried again when its files change.",
    type=click.IntRange(min=0),
)
@without_effect(
    "enable_grpc_healthcheck_service", "the health service always runs.", type=bool, is_flag=False, flag_value=True
)
@flag(
    "allow_reload",
    is_flag=True,
    help="Let clients change the models (HandleReloadConfigRequest). Needs --model-root. A SavedModel is a program.",
    show_default=False,
)
@flag(
    "model_root",
    type=click.Path(path_type=Path),
    help="With --allow-reload: folder that contains every model that clients may load.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the log on standard error. json: one object per line.",
)
@click.option("--verbose", is_flag=True, help=f"Log every request that takes {SLOW_S:g} s or longer, with its id.")
@click.option("--quiet", "-q", is_flag=True, help="Log warnings and errors only.")
@click.option(
    "--otel",
    is_flag=True,
    help="Send a span of every request to an OpenTelemetry collector, over gRPC. OTEL_EXPORTER_OTLP_ENDPOINT is its "
    "address. Needs the extra otel.",
)
@flag(
    "page_for",
    metavar="URL",
    help="Only serve a web page for another server's REST API, as in http://localhost:8501. Needs --rest-api-port. "
    "--model-name chooses the model.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the startup line as JSON.")
@click.pass_context
def serve(
    context: click.Context, /, as_json: bool, log_format: str, quiet: bool, page_for: str | None, **flags: Any
) -> None:
    """Serve generated digits, or any SavedModel, over TensorFlow Serving's protocol.

    Without options, serves the shipped generator on 127.0.0.1:8500. Most options have TensorFlow Serving's names.
    Write them with underscores (--model_base_path) or with hyphens (--model-base-path).

    With --rest-api-port, the port also serves a web page at / for looking at images.

    Prints one line when all models are loaded and the port is open. Ctrl-C, SIGTERM or a closed terminal stops the
    server after requests in flight have finished. A second signal stops it at once.

    \b
    Examples:
      digitforge serve
      digitforge serve --model models/digits --port 8500 --rest-api-port 8501
      digitforge serve --model-config-file models.config --enable-batching
    """
    configure_logging(log_format, quiet=quiet)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # otherwise it reports its own start and stop
    if page_for is not None:
        page = _page_server(context, page_for, flags)
        page.check()
        _run_until_signal(page, lambda: _announce_page(page, page_for, as_json=as_json), grace_s=flags["grace_seconds"])
        return
    check_extras("serving", "`digitforge serve`")
    if flags.pop("allow_reload") != (flags["model_root"] is not None):
        raise InvalidInputError("--allow-reload and --model-root belong together; give both or neither")
    sources = _sources(flags.pop("model_name"), flags.pop("model_base_path"), flags["model_config_file"])
    batching = _batching(flags.pop("enable_batching"), flags.pop("batching_parameters_file"))
    flags["rest_api_port"] = flags["rest_api_port"] or None
    monitoring = flags.pop("monitoring_config_file")
    flags["metrics_path"] = read_metrics_path(monitoring) if monitoring is not None else None
    certificates = flags.pop("ssl_config_file")
    flags["tls"] = read_tls(Path(certificates)) if certificates else None  # "" means no TLS, as in docker-compose.yml
    flags["grpc_channel_arguments"] = parse_channel_arguments(flags["grpc_channel_arguments"])
    tags = tuple(flags.pop("saved_model_tags").split(","))
    server = Server(sources, ServerOptions(saved_model_tags=tags, batching=batching, **flags))
    server.check()
    log.info("starting TensorFlow …")
    import_tensorflow()
    find_gpus()
    with sending_spans() if flags["otel"] else nullcontext():
        _run_until_signal(server, lambda: _announce(server, as_json=as_json), grace_s=flags["grace_seconds"])


def _sources(name: str, base_path: Path | None, config_file: Path | None) -> tuple[ModelSource, ...]:
    if config_file is None:
        return (ModelSource(name=name, base_path=base_path or shipped_models() / contract.MODEL_NAME),)
    if base_path is not None:
        raise InvalidInputError("--model-base-path and --model-config-file cannot be used together; give one of them")
    return read_model_config(config_file)


def _batching(enabled: bool, file: Path | None) -> BatchingOptions | None:
    if file is not None and not enabled:
        raise InvalidInputError("--batching-parameters-file needs --enable-batching; give both or neither")
    if not enabled:
        return None
    return BatchingOptions() if file is None else read_batching_options(file)


def _page_server(context: click.Context, url: str, flags: dict[str, Any]) -> PageServer:
    """The server of ``--page-for``.

    Raises:
        InvalidInputError: an option is missing, or it has nothing to do with the page.
    """
    from digitforge_serving.api.http_server import Limits
    from digitforge_serving.page.server import PageServer, Upstream

    given = [name for name in flags if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    for name in given:
        if name not in _PAGE_FLAGS:
            option = f"--{name.replace('_', '-')}"
            raise InvalidInputError(f"{option} has no effect with --page-for, which loads no model; leave out {option}")
    if "rest_api_port" not in given:
        raise InvalidInputError("--page-for needs a port for the page; give --rest-api-port as well")
    monitoring = flags["monitoring_config_file"]
    return PageServer(
        Upstream.of(url),
        model_name=flags["model_name"],
        metrics_path=PROMETHEUS_PATH if monitoring is None else read_metrics_path(monitoring),
        host=flags["host"],
        port=flags["rest_api_port"],
        limits=Limits(
            body_bytes=flags["rest_api_max_body_mib"] * 2**20,
            receive_s=flags["rest_api_receive_timeout_in_ms"] / 1000,
        ),
    )


def _run_until_signal(server: Server | PageServer, announcement: Callable[[], str], *, grace_s: float) -> None:
    """Start, print the startup line, wait for a signal, finish requests in flight. A second signal exits at once."""
    received: list[int] = []
    wakes, wake = socket.socketpair()

    def on_signal(number: int, _: FrameType | None) -> None:
        # Takes no lock, because the thread that runs it may hold one. `threading.Event` would.
        if received and number == HANGUP:  # the shell and the kernel both send it
            return
        if received:
            os._exit(128 + number)
        received.append(number)
        wake.send(b"\0")
        server.interrupt()

    # Under nohup, SIGHUP stays ignored.
    ending = [number for number in ENDING_SIGNALS if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in ending}
    try:
        if server.start():
            click.echo(announcement())
            sys.stdout.flush()
            trimmed = time.monotonic()
            # Short waits, because a signal that another thread receives does not wake this one.
            while not select.select([wakes], [], [], _POLL_S)[0]:
                if time.monotonic() > trimmed + _TRIM_S:
                    _trim_memory()
                    trimmed = time.monotonic()
            log.info("stopping: waiting for requests in flight")
        interrupted = received[0] == signal.SIGINT
        # TensorFlow stops a computation only between two operations, and at exit Python waits for it.
        force_exit = threading.Timer(grace_s + _FORCE_EXIT_S, os._exit, [128 + signal.SIGINT if interrupted else 0])
        force_exit.daemon = True
        force_exit.start()
        server.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        wakes.close()
        wake.close()
    if interrupted:
        raise KeyboardInterrupt


def _trim_memory() -> None:
    """Return freed memory to the system. glibc keeps most of what large requests have used."""
    with suppress(AttributeError, TypeError):  # another C library, or Windows
        ctypes.CDLL(None).malloc_trim(0)


def _announce_page(server: PageServer, url: str, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"page": server.url, "page_for": url})
    return f"page for {url} ready: {server.url}"


def _announce(server: Server, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"grpc_target": server.target, "rest_target": server.rest_target, "models": server.serving})
    models = ", ".join(
        f"{name} version {' and '.join(map(str, versions))}" for name, versions in server.serving.items()
    )
    rest = f", REST {server.rest_target}, page http://{server.rest_target}/" if server.rest_target else ""
    return f"{models} ready: gRPC {server.target}{rest}"
