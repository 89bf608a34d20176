"""Startup configuration of a server: its options and the models that it serves."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from digitforge_client import contract
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_serving.config import messages
from digitforge_serving.config.messages_pb2 import BatchingParameters, MonitoringConfig, SSLConfig

if TYPE_CHECKING:
    from tensorflow_serving.config import model_server_config_pb2

#: TensorFlow Serving's default path for metrics.
PROMETHEUS_PATH: Final = "/monitoring/prometheus/metrics"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model's name, its folder, and which of its versions to serve."""

    name: str  #: name that clients use
    base_path: Path  #: contains one folder per version, named by the version's number
    policy: Literal["latest", "all", "specific"] = "latest"  #: which versions to serve
    latest: int = 1  #: number of versions to serve, highest first, with the policy ``latest``
    versions: tuple[int, ...] = ()  #: versions to serve with the policy ``specific``
    labels: Mapping[str, int] = field(default_factory=dict)  #: label => version
    root: Path | None = None  #: load only files below this folder, symbolic links resolved; None: any file

    def check(self) -> None:
        """Check that ``base_path`` can contain versions.

        Raises:
            DataError: it does not exist, is not a local folder, or is itself the folder of a version.
        """
        if re.match(r"\w{2,}:/", str(self.base_path)):
            raise DataError(
                f"the base path {self.base_path} of model {self.name} is not a local folder; copy the model to this "
                "machine, because this server does not read object stores such as S3 and GCS"
            )
        if not self.base_path.is_dir():
            raise DataError(
                f"the folder {self.base_path} of model {self.name} does not exist; expected a folder that contains "
                "the model's versions: 1, 2, …"
            )
        if (self.base_path / "saved_model.pb").exists():
            raise DataError(
                f"{self.base_path} is itself a version of a model; pass the folder that contains it, "
                f"{self.base_path.resolve().parent}, and name the version's folder with a number"
            )

    def choose(self, available: list[int]) -> list[int]:
        """Select the versions to serve from the *available* ones, highest first."""
        descending = sorted(available, reverse=True)
        if self.policy == "latest":
            return descending[: self.latest]
        if self.policy == "specific":
            return [version for version in descending if version in self.versions]
        return descending


@dataclass(frozen=True, kw_only=True)
class BatchingOptions:
    """How concurrent requests are merged. Names and defaults match TensorFlow Serving's batching file."""

    max_batch_size: int = 1000  #: rows
    batch_timeout_micros: int = 0  #: µs that a batch waits to fill up; 0: start as soon as a thread is free
    max_enqueued_batches: int = 10  #: batches that may wait; further requests get UNAVAILABLE
    num_batch_threads: int | None = None  #: batches computed at the same time; None: one per core
    allowed_batch_sizes: tuple[int, ...] = ()  #: rows to pad a batch to, ascending; empty: no padding

    def threads(self) -> int:
        """Number of batches computed at the same time."""
        return self.num_batch_threads or cores()

    def padded(self, rows: int) -> int:
        """Number of rows of a batch after padding."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


def read_batching_options(path: Path) -> BatchingOptions:
    """Read the file of ``--batching_parameters_file``: ``BatchingParameters`` in protobuf text.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: the text is not valid, a value is out of range, or an option is not supported.
    """
    parameters = messages.read(path, BatchingParameters)
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    given = {name: getattr(parameters, name).value for name in names if parameters.HasField(name)}
    options = BatchingOptions(**given, allowed_batch_sizes=tuple(parameters.allowed_batch_sizes))
    sizes = options.allowed_batch_sizes
    if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != options.max_batch_size):
        raise InvalidInputError(
            f"{path}: allowed_batch_sizes is {list(sizes)}; expected ascending numbers that end with max_batch_size "
            f"({options.max_batch_size})"
        )
    too_small = [f"{name} is {value}" for name, value in given.items() if value < 1 and name != "batch_timeout_micros"]
    if too_small:
        raise InvalidInputError(f"{path}: {', '.join(too_small)}; expected 1 or more")
    if parameters.pad_variable_length_inputs or parameters.enable_large_batch_splitting.value:
        raise InvalidInputError(
            f"{path}: pad_variable_length_inputs and enable_large_batch_splitting are not supported by the embedded "
            "server; remove them"
        )
    return options


def read_metrics_path(path: Path) -> str | None:
    """Read the file of ``--monitoring_config_file``: ``MonitoringConfig`` in protobuf text.

    Returns:
        The URL path of the metrics for Prometheus; None if they are not enabled.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: the text is not valid.
    """
    prometheus = messages.read(path, MonitoringConfig).prometheus_config
    return (prometheus.path or PROMETHEUS_PATH) if prometheus.enable else None


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Tls:
    """A server's key and certificate, and which clients it accepts."""

    server_key: bytes  #: PEM
    server_cert: bytes  #: PEM
    custom_ca: bytes | None = None  #: PEM of the authority that clients' certificates are checked against
    client_verify: bool = False  #: reject clients without a certificate


def read_tls(path: Path) -> Tls:
    """Read the file of ``--ssl_config_file``: ``SSLConfig`` in protobuf text that contains the PEM files.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: the text is not valid, or a required field is missing.
    """
    config = messages.read(path, SSLConfig)
    if not config.server_key or not config.server_cert:
        raise InvalidInputError(f"{path} lacks server_key or server_cert; add the contents of both PEM files")
    if config.client_verify and not config.custom_ca:
        raise InvalidInputError(
            f"{path} sets client_verify but not custom_ca; add the certificate (PEM) of the clients' authority"
        )
    return Tls(
        server_key=config.server_key.encode(),
        server_cert=config.server_cert.encode(),
        custom_ca=config.custom_ca.encode() or None,
        client_verify=config.client_verify,
    )


def parse_channel_arguments(text: str) -> tuple[tuple[str, str | int], ...]:
    """Parse ``--grpc_channel_arguments`` (``key=value,key=value``). Whole numbers become ``int``.

    Raises:
        InvalidInputError: an argument is not of the form ``key=value``.
    """
    pairs: list[tuple[str, str | int]] = []
    for argument in filter(None, text.split(",")):
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise InvalidInputError(f"--grpc-channel-arguments contains {argument!r}; expected key=value")
        pairs.append((key, int(value) if value.removeprefix("-").isdecimal() else value))
    return tuple(pairs)


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server behaves. Options of TensorFlow Serving have its names and defaults. Comments name the exceptions."""

    host: str = "127.0.0.1"  #: address to listen on (TensorFlow Serving listens on all interfaces)
    port: int = contract.GRPC_PORT  #: port for gRPC; 0: any free port
    grpc_socket_path: Path | None = None  #: also listen on this Unix socket
    #: options for the gRPC library, such as ``grpc.max_concurrent_streams``
    grpc_channel_arguments: tuple[tuple[str, str | int], ...] = ()
    tls: Tls | None = None  #: TLS for gRPC; REST is never encrypted
    rest_api_port: int | None = None  #: port for REST; None: no REST; 0: any free port
    rest_api_timeout_in_ms: int = 30_000  #: time limit of a REST request, including time in the queue; 0: no limit
    rest_api_max_body_mib: int = 8  #: largest body of a REST request in MiB, after decompression
    #: time that a REST client has to send a request's headers, and again its body; also ends idle connections
    rest_api_receive_timeout_in_ms: int = 30_000
    rest_api_enable_cors_support: bool = False  #: let web pages from other origins use the REST API
    metrics_path: str | None = None  #: URL path of the metrics on the REST port; None: no metrics
    grpc_max_threads: int | None = None  #: requests computed at the same time without batching; None: 2 per core
    batching: BatchingOptions | None = None  #: merge concurrent requests; None: compute each request alone
    max_requests: int = 512  #: requests in flight, waiting ones included; further ones get RESOURCE_EXHAUSTED
    file_system_poll_wait_seconds: float = 1.0  #: time between checks for new versions; 0: check only at startup
    model_config_file: Path | None = None  #: file to watch for changes of the models
    model_config_file_poll_wait_seconds: float = 0.0  #: time between checks of that file; 0: do not watch it
    allow_version_labels_for_unavailable_models: bool = False  #: accept labels of versions that are not loaded
    enable_model_warmup: bool = True  #: replay ``assets.extra/tf_serving_warmup_requests`` before a version serves
    #: Send gRPC replies as raw bytes, which cost less than typed fields. Off by default: ``tf.make_ndarray`` cannot
    #: read strings sent this way. With this flag, any REST prediction crashes TensorFlow Serving 2.19.1.
    enable_serialization_as_tensor_content: bool = False
    saved_model_tags: tuple[str, ...] = ("serve",)  #: tags of the graph to load
    tensorflow_intra_op_parallelism: int = 0  #: threads for one operation; 0: one per core
    tensorflow_inter_op_parallelism: int = 0  #: operations that run at the same time; 0: one per core
    #: Accept HandleReloadConfigRequest for base paths below this folder, symbolic links resolved. None: reject it.
    model_root: Path | None = None
    verbose: bool = False  #: log requests that take a second or longer
    #: Record a span of each request with OpenTelemetry's global tracer provider. Needs the extra ``otel``.
    otel: bool = False
    grace_seconds: float = 30.0  #: time that requests in flight have to finish after the server is told to stop


def is_loopback(host: str) -> bool:
    """Whether *host* is a loopback address, which only this machine can reach."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def read_model_config(path: Path) -> tuple[ModelSource, ...]:
    """Read the file of ``--model_config_file``: ``ModelServerConfig`` in protobuf text.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: the text is not valid, lists no model, or lists one that is incomplete or not supported.
    """
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    sources = model_sources(messages.read(path, ModelServerConfig))
    if not sources:
        raise InvalidInputError(f"{path} lists no model; add one: model_config_list {{ config {{ … }} }}")
    return sources


def model_sources(config: model_server_config_pb2.ModelServerConfig) -> tuple[ModelSource, ...]:
    """The models that a ``ModelServerConfig`` lists.

    Errors contain TensorFlow Serving's words, for programs that look for them.

    Raises:
        InvalidInputError: it lists the same name twice, or a model without a name, an absolute base path or
            the platform ``tensorflow``.
    """
    sources = tuple(_source(model) for model in config.model_config_list.config)
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInputError(
                f"Illegal to list model {name} multiple times in config list; remove one, or give it another name"
            )
    return sources


def _source(model: model_server_config_pb2.ModelConfig) -> ModelSource:
    if not model.name:
        raise InvalidInputError('a model in the model configuration has no name; add name: "…"')
    if not Path(model.base_path).is_absolute() and "://" not in model.base_path:
        raise InvalidInputError(
            f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}; write "
            "base_path with a leading /"
        )
    if not model.model_platform and not model.model_type:
        raise InvalidInputError(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
            f'model name is {model.name}; add model_platform: "tensorflow"'
        )
    if model.model_platform not in {"", "tensorflow"} or model.model_type > 1:
        raise InvalidInputError(
            f"PlatformConfigMap has no entry for platform {model.model_platform or model.model_type} of model "
            f'{model.name}; write model_platform: "tensorflow"'
        )
    policy = model.model_version_policy
    choice: Literal["latest", "all", "specific"] = policy.WhichOneof("policy_choice") or "latest"
    return ModelSource(
        name=model.name,
        base_path=Path(model.base_path),
        policy=choice,
        latest=policy.latest.num_versions or 1,
        versions=tuple(policy.specific.versions),
        labels=dict(model.version_labels),
    )
