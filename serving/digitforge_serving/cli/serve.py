"""The command ``digitforge serve``."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import click

from digitforge_client import contract
from digitforge_client.common.command import ENDING_SIGNALS, HANGUP, import_quietly
from digitforge_client.errors import InvalidInputError
from digitforge_serving.config.options import (
    BatchingOptions,
    ModelSource,
    ServerOptions,
    parse_channel_arguments,
    read_batching_options,
    read_metrics_path,
    read_model_config,
    read_tls,
)
from digitforge_serving.models.locations import shipped_models
from digitforge_serving.server import Server

_LEGACY_KERAS = "TF_USE_LEGACY_KERAS"
_LOOK_S = 0.5  # between two looks whether a signal came
_LAST_S = 1.5  # after the grace period, for what is being computed to notice that nobody waits


def flag(name: str, **attributes: Any) -> Any:
    """An option in TensorFlow Serving's spelling, ``--model_name``, and in ours, ``--model-name``."""
    spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
    return click.option(*spellings, name, show_default=attributes.pop("show_default", True), **attributes)


def switch(name: str, default: bool, **attributes: Any) -> Any:
    """A flag that is given alone, or with a value: ``--enable_batching``, ``--enable_batching=false``."""
    return flag(name, type=bool, is_flag=False, flag_value=True, default=default, metavar="[true|false]", **attributes)


@click.command()
@flag(
    "model_base_path",
    type=click.Path(path_type=Path),
    help="Folder with the versions of the model: 1, 2, …",
    show_default="the shipped model",
)
@flag("model_name", default=contract.MODEL_NAME, help="What clients call the model.")
@flag(
    "model_config_file",
    type=click.Path(path_type=Path),
    help="Several models, as a ModelServerConfig in protobuf text; instead of the two above.",
)
@flag(
    "model_config_file_poll_wait_seconds",
    type=click.FloatRange(min=0),
    default=ServerOptions.model_config_file_poll_wait_seconds,
    help="Time between two looks at that file; 0 looks once.",
)
@flag("port", type=click.IntRange(0, 65535), default=contract.GRPC_PORT, help="Port for gRPC; 0 takes a free one.")
@flag("rest_api_port", type=click.IntRange(0, 65535), default=0, help="Port for REST; 0 is none.", show_default="none")
@flag(
    "rest_api_timeout_in_ms",
    type=click.IntRange(min=0),
    default=ServerOptions.rest_api_timeout_in_ms,
    help="How long a REST request may wait and run; 0 is without end.",
)
@flag(
    "monitoring_config_file",
    type=click.Path(path_type=Path),
    help="Metrics on the REST port, as MonitoringConfig in protobuf text.",
)
@flag("grpc_socket_path", type=click.Path(path_type=Path), help="A unix socket to listen on as well.")
@flag(
    "ssl_config_file",
    type=click.Path(),
    help="TLS for gRPC, as SSLConfig in protobuf text with the PEMs.",
)
@flag("grpc_channel_arguments", default="", help="Arguments of gRPC itself: key=value,key=value.", show_default=False)
@flag("host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 is every interface.")
@flag(
    "grpc_max_threads",
    type=click.IntRange(min=1),
    help="Requests computed at the same time.",
    show_default="4 for each core",
)
@switch("enable_batching", default=False, help="Compute requests that arrive together together.")
@flag(
    "batching_parameters_file",
    type=click.Path(path_type=Path),
    help="How to batch, as BatchingParameters in protobuf text.",
)
@flag(
    "max_requests",
    type=click.IntRange(min=1),
    default=ServerOptions.max_requests,
    help="Requests in flight or waiting; more are refused.",
)
@flag(
    "file_system_poll_wait_seconds",
    type=click.FloatRange(min=0),
    default=ServerOptions.file_system_poll_wait_seconds,
    help="Time between two looks for new versions; 0 looks once.",
)
@switch(
    "allow_version_labels_for_unavailable_models",
    default=False,
    help="Allow labels of versions that are not loaded yet.",
)
@switch("enable_model_warmup", default=True, help="Replay a version's warm-up requests before it serves.")
@switch(
    "enable_serialization_as_tensor_content",
    default=ServerOptions.enable_serialization_as_tensor_content,
    help="Answer over gRPC with raw bytes, not with typed fields.",
)
@flag("saved_model_tags", default="serve", help="Tags of the graph to load, separated by commas.")
@flag(
    "tensorflow_intra_op_parallelism",
    type=click.IntRange(min=0),
    default=0,
    help="Threads within an operation; 0 is one for each core.",
)
@flag(
    "tensorflow_inter_op_parallelism",
    type=click.IntRange(min=0),
    default=0,
    help="Operations at the same time; 0 is one for each core.",
)
@flag(
    "grace_seconds",
    type=click.FloatRange(min=0),
    default=ServerOptions.grace_seconds,
    help="How long requests in flight may take after SIGTERM.",
)
@click.option("--json", "as_json", is_flag=True, help="Print where the server listens as JSON.")
def serve(as_json: bool, **flags: Any) -> None:
    """Serve generated digits, or any SavedModel, over TensorFlow Serving's protocol.

    Prints one line once every model is loaded and the port is open, and runs until it is told to stop. Ctrl-C,
    SIGTERM and a closed terminal let requests in flight finish; a second signal ends at once.

    Without arguments it serves the shipped generator on 127.0.0.1:8500. The options are TensorFlow Serving's, under
    its names (--model_base_path) or with hyphens.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="digitforge serve: %(message)s")
    sources = _sources(flags.pop("model_name"), flags.pop("model_base_path"), flags["model_config_file"])
    batching = _batching(flags.pop("enable_batching"), flags.pop("batching_parameters_file"))
    flags["rest_api_port"] = flags["rest_api_port"] or None
    monitoring = flags.pop("monitoring_config_file")
    flags["metrics_path"] = read_metrics_path(monitoring) if monitoring is not None else None
    certificates = flags.pop("ssl_config_file")
    flags["tls"] = read_tls(Path(certificates)) if certificates else None  # an empty one is none
    flags["grpc_channel_arguments"] = parse_channel_arguments(flags["grpc_channel_arguments"])
    tags = tuple(flags.pop("saved_model_tags").split(","))
    server = Server(sources, ServerOptions(saved_model_tags=tags, batching=batching, **flags))
    server.check()
    _import_tensorflow()
    _run_until_told(server, as_json=as_json, grace_s=flags["grace_seconds"])


def _import_tensorflow() -> None:
    """Import TensorFlow without Keras, which takes longer than TensorFlow itself and which no SavedModel needs."""
    if "tensorflow" in sys.modules:
        return
    given = os.environ.get(_LEGACY_KERAS)
    os.environ[_LEGACY_KERAS] = "1"  # it then looks for the package tf_keras instead, and does without
    try:
        import_quietly("tensorflow")
        gc.freeze()  # or an interpreter that ends walks through all of TensorFlow once more, which takes seconds
    finally:
        del os.environ[_LEGACY_KERAS]
        if given is not None:
            os.environ[_LEGACY_KERAS] = given


def _sources(name: str, base_path: Path | None, config_file: Path | None) -> tuple[ModelSource, ...]:
    if config_file is None:
        return (ModelSource(name=name, base_path=base_path or shipped_models() / contract.MODEL_NAME),)
    if base_path is not None:
        raise InvalidInputError("--model-base-path and --model-config-file exclude each other; give one of them")
    return read_model_config(config_file)


def _batching(enabled: bool, file: Path | None) -> BatchingOptions | None:
    if file is not None and not enabled:
        raise InvalidInputError("--batching-parameters-file needs --enable-batching")
    if not enabled:
        return None
    return BatchingOptions() if file is None else read_batching_options(file)


def _run_until_told(server: Server, *, as_json: bool, grace_s: float) -> None:
    """Start, announce, wait for a signal, drain. A second signal ends the process wherever it is."""
    told = threading.Event()
    received: list[int] = []

    def tell(number: int, _: FrameType | None) -> None:
        if received and number == HANGUP:  # which the shell and the kernel both send
            return
        if received:
            os._exit(128 + number)
        received.append(number)
        told.set()
        server.interrupt()

    # nohup ignores a closed terminal, and that remains so
    ending = [number for number in ENDING_SIGNALS if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, tell) for number in ending}
    try:
        if server.start():
            click.echo(_announcement(server, as_json=as_json))
            sys.stdout.flush()
            while not told.wait(_LOOK_S):  # a signal that another thread receives does not wake this one
                pass
            logging.getLogger("digitforge.serving").info("stopping: requests in flight may finish")
        interrupted = received[0] == signal.SIGINT
        # TensorFlow ends a computation between two operations only, and Python would wait for it.
        last = threading.Timer(grace_s + _LAST_S, os._exit, [128 + signal.SIGINT if interrupted else 0])
        last.daemon = True
        last.start()
        server.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted:
        raise KeyboardInterrupt


def _announcement(server: Server, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"grpc_target": server.target, "rest_target": server.rest_target, "models": server.serving})
    models = ", ".join(
        f"{name} version {' and '.join(map(str, versions))}" for name, versions in server.serving.items()
    )
    rest = f", REST {server.rest_target}" if server.rest_target else ""
    return f"{models} ready: gRPC {server.target}{rest}"
