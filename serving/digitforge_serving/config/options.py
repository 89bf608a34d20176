"""What a server is told at its start: options, and which versions of which models it serves."""

from __future__ import annotations

import os
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


#: Where TensorFlow Serving shows its metrics, unless its monitoring file says otherwise.
PROMETHEUS_PATH: Final = "/monitoring/prometheus/metrics"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model comes from and which of its versions are served."""

    name: str
    base_path: Path  # contains one folder per version, named by its number
    policy: Literal["latest", "all", "specific"] = "latest"
    latest: int = 1  # how many of the highest versions, with the policy `latest`
    versions: tuple[int, ...] = ()  # with the policy `specific`
    labels: Mapping[str, int] = field(default_factory=dict)  # label => version

    def check(self) -> None:
        """See that the base path can be one.

        Raises:
            DataError: it does not exist, or is itself a version.
        """
        if not self.base_path.is_dir():
            raise DataError(f"the folder {self.base_path} of model {self.name} does not exist")
        if (self.base_path / "saved_model.pb").exists():
            raise DataError(
                f"{self.base_path} is itself a version of a model; the base path is the folder that contains it, "
                f"{self.base_path.resolve().parent}, and a version's folder is named by a number"
            )

    def choose(self, available: list[int]) -> list[int]:
        """The versions to serve among those that the folder has, highest first."""
        descending = sorted(available, reverse=True)
        if self.policy == "latest":
            return descending[: self.latest]
        if self.policy == "specific":
            return [version for version in descending if version in self.versions]
        return descending


@dataclass(frozen=True, kw_only=True)
class BatchingOptions:
    """How concurrent requests are merged. Names and defaults are those of TensorFlow Serving's batching file."""

    max_batch_size: int = 1000  # rows
    batch_timeout_micros: int = 0  # how long a batch that is not full waits for more; 0: it starts as soon as it can
    max_enqueued_batches: int = 10  # batches that may wait; more requests are refused with UNAVAILABLE
    num_batch_threads: int | None = None  # batches computed at the same time; None: one for each core
    allowed_batch_sizes: tuple[int, ...] = ()  # rows to pad a batch to, ascending; none: no padding

    def threads(self) -> int:
        """Batches computed at the same time."""
        return self.num_batch_threads or cores()

    def padded(self, rows: int) -> int:
        """Rows of a batch once it is padded."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows) if rows else 0


def read_batching_options(path: Path) -> BatchingOptions:
    """Read a file of ``--batching_parameters_file``, ``BatchingParameters`` in protobuf text.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: it is no such text, contradicts itself, or asks for what is not supported.
    """
    parameters = messages.read(path, BatchingParameters)
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    given = {name: getattr(parameters, name).value for name in names if parameters.HasField(name)}
    options = BatchingOptions(**given, allowed_batch_sizes=tuple(parameters.allowed_batch_sizes))
    sizes = options.allowed_batch_sizes
    if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != options.max_batch_size):
        raise InvalidInputError(
            f"{path}: allowed_batch_sizes are {list(sizes)}; expected ascending numbers, the last of them "
            f"max_batch_size, {options.max_batch_size}"
        )
    if any(given.get(name, 1) < 1 for name in names if name != "batch_timeout_micros"):
        raise InvalidInputError(f"{path}: {given}; expected numbers from 1")
    if parameters.pad_variable_length_inputs or parameters.enable_large_batch_splitting.value:
        raise InvalidInputError(f"{path}: padding of inputs and splitting of large batches are not supported here")
    return options


def read_metrics_path(path: Path) -> str | None:
    """Read a file of ``--monitoring_config_file``, a ``MonitoringConfig`` in protobuf text.

    Returns:
        The path of the page for Prometheus; None where it is not enabled.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: it is no such text.
    """
    prometheus = messages.read(path, MonitoringConfig).prometheus_config
    return (prometheus.path or PROMETHEUS_PATH) if prometheus.enable else None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Tls:
    """A server's identity, and whom it believes; all PEM."""

    server_key: bytes
    server_cert: bytes
    custom_ca: bytes | None = None  # whose certificates clients may show
    client_verify: bool = False  # refuse clients that show none


def read_tls(path: Path) -> Tls:
    """Read a file of ``--ssl_config_file``, an ``SSLConfig`` in protobuf text that contains the PEM files.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: it is no such text, or lacks what it needs.
    """
    config = messages.read(path, SSLConfig)
    if not config.server_key or not config.server_cert:
        raise InvalidInputError(f"{path} lacks server_key or server_cert; expected the contents of both PEM files")
    if config.client_verify and not config.custom_ca:
        raise InvalidInputError(f"{path} asks for client_verify without custom_ca, whose certificates it would believe")
    return Tls(
        server_key=config.server_key.encode(),
        server_cert=config.server_cert.encode(),
        custom_ca=config.custom_ca.encode() or None,
        client_verify=config.client_verify,
    )


def parse_channel_arguments(text: str) -> tuple[tuple[str, str | int], ...]:
    """Split ``--grpc_channel_arguments``, ``key=value,key=value``; a value that is a whole number becomes one.

    Raises:
        InvalidInputError: an argument is no pair.
    """
    pairs: list[tuple[str, str | int]] = []
    for argument in filter(None, text.split(",")):
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise InvalidInputError(f"--grpc-channel-arguments: {argument!r}; expected key=value")
        pairs.append((key, int(value) if value.removeprefix("-").isdecimal() else value))
    return tuple(pairs)


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server behaves. Names and defaults are TensorFlow Serving's, where it has them."""

    host: str = "127.0.0.1"  # TensorFlow Serving binds every interface
    port: int = contract.GRPC_PORT  # 0: a free one
    grpc_socket_path: Path | None = None  # a unix socket to listen on as well
    grpc_channel_arguments: tuple[
        tuple[str, str | int], ...
    ] = ()  # of gRPC itself, such as grpc.max_concurrent_streams
    tls: Tls | None = None  # of the gRPC port; REST stays plain
    rest_api_port: int | None = None  # None: no REST; 0: a free one
    rest_api_timeout_in_ms: int = 30_000
    metrics_path: str | None = None  # on the REST port; None: no metrics
    grpc_max_threads: int | None = None  # requests computed at the same time without batching; None: 4 for each core
    batching: BatchingOptions | None = None  # merge concurrent requests; None: compute each alone
    max_requests: int = 512  # requests in flight or waiting; more are refused with RESOURCE_EXHAUSTED
    file_system_poll_wait_seconds: float = 1.0  # between two looks for new versions; 0: look once, at the start
    model_config_file: Path | None = None  # watched, where the next option says so
    model_config_file_poll_wait_seconds: float = 0.0  # between two looks at that file; 0: no look after the start
    allow_version_labels_for_unavailable_models: bool = False
    enable_model_warmup: bool = True  # replay assets.extra/tf_serving_warmup_requests before a version serves
    # Raw bytes cost less than typed fields. But `tf.make_ndarray` cannot read strings in them, and with this flag one
    # REST request for a prediction crashes TensorFlow Serving 2.19.1.
    enable_serialization_as_tensor_content: bool = False
    saved_model_tags: tuple[str, ...] = ("serve",)
    tensorflow_intra_op_parallelism: int = 0  # threads within an operation; 0: one for each core
    tensorflow_inter_op_parallelism: int = 0  # operations at the same time; 0: one for each core
    grace_seconds: float = 30.0  # how long requests in flight may still take once the server is told to stop


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def read_model_config(path: Path) -> tuple[ModelSource, ...]:
    """Read a file of TensorFlow Serving's ``--model_config_file``, a ``ModelServerConfig`` in protobuf text.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: it is no such text, or asks for what is not supported.
    """
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    return model_sources(messages.read(path, ModelServerConfig))


def model_sources(config: model_server_config_pb2.ModelServerConfig) -> tuple[ModelSource, ...]:
    """The models that a ``ModelServerConfig`` lists.

    Raises:
        InvalidInputError: it lists none, one without a name or a base path, or one twice.
    """
    sources = tuple(_source(model) for model in config.model_config_list.config)
    names = [source.name for source in sources]
    if not sources:
        raise InvalidInputError("the model configuration lists no model; expected model_config_list { config { … } }")
    if len(set(names)) < len(names):
        raise InvalidInputError(f"the model configuration names a model twice: {', '.join(sorted(names))}")
    return sources


def _source(model: model_server_config_pb2.ModelConfig) -> ModelSource:
    if not model.name or not model.base_path:
        raise InvalidInputError("a model of the model configuration lacks its name or its base_path")
    if model.model_platform not in {"", "tensorflow"}:
        raise InvalidInputError(f"model {model.name}: platform {model.model_platform!r}; expected 'tensorflow'")
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
