"""The embedded server: load models, open the ports, answer requests, stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import grpc

from digitforge_client import contract
from digitforge_client.common.extras import needs_extra
from digitforge_client.common.shipped import shipped_models
from digitforge_client.errors import DataError, DigitforgeError
from digitforge_serving.api.in_flight import InFlight
from digitforge_serving.api.ports import bracketed, check_port, port_error
from digitforge_serving.api.request_log import RequestLog
from digitforge_serving.config.options import ModelSource, ServerOptions, Tls, is_loopback

if TYPE_CHECKING:
    from digitforge_serving.api.health import Health
    from digitforge_serving.api.http_server import HttpServer
    from digitforge_serving.api.management import ConfigWatch
    from digitforge_serving.metrics import Metrics
    from digitforge_serving.models.manager import Models
    from digitforge_serving.page.document import PageInfo

log = logging.getLogger("digitforge.serving")

#: Maximum size of a request, after decompression. A compressed message of a few KiB can claim gigabytes.
MAX_REQUEST_BYTES: Final = 2**26
_POLL_S: Final = 0.5
_CLOSE_S: Final = 0.25  # time to tell clients that the connection closes
_GRPC_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),  # no limit
    # Otherwise two servers could open the same port, and each would get some of the connections.
    ("grpc.so_reuseport", 0),
    # Detects clients that disappeared without closing the connection, and frees their resources.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


class Server:
    """Serves SavedModels over gRPC and, if the options ask for it, REST."""

    def __init__(self, sources: Sequence[ModelSource], options: ServerOptions | None = None) -> None:
        self._sources = tuple(sources)
        self._options = options or ServerOptions()
        self._interrupted = False
        self._models: Models | None = None
        self._server: grpc.Server | None = None
        self._health: Health | None = None
        self._watch: ConfigWatch | None = None
        self._rest: HttpServer | None = None
        self._in_flight = InFlight()
        self._requests = RequestLog(verbose=self._options.verbose, otel=self._options.otel)
        self._target = ""

    @property
    def target(self) -> str:
        """Address for gRPC clients, such as ``127.0.0.1:8500``; empty until the server has started."""
        return self._target

    @property
    def rest_target(self) -> str | None:
        """Address for REST clients, such as ``127.0.0.1:8501``; None without REST."""
        return None if self._rest is None else f"{bracketed(self._options.host)}:{self._rest.port}"

    @property
    def serving(self) -> dict[str, list[int]]:
        """Model name => versions that serve now, ascending."""
        return {} if self._models is None else self._models.serving()

    def check(self) -> None:
        """Check folders and ports, without importing TensorFlow.

        Raises:
            DataError: a model's folder does not exist, or it is itself the folder of a version.
            DigitforgeError: a port cannot be opened.
        """
        for source in self._sources:
            source.check()
        if self._options.model_root is not None and not self._options.model_root.is_dir():
            raise DataError(f"the folder {self._options.model_root} of --model-root does not exist; create it")
        check_port(self._options.host, self._options.port, "--port")
        check_port(self._options.host, self._options.rest_api_port or 0, "--rest-api-port")

    def start(self) -> bool:
        """Load all models, then open the ports.

        Like TensorFlow Serving, waits while a model's folder has no version.

        Returns:
            True when the server runs; False if `stop` or `interrupt` ended the wait.

        Raises:
            DataError: a model's folder does not exist, it is itself the folder of a version, or none of its versions
                can be loaded.
            DigitforgeError: a port cannot be opened.
        """
        self.check()  # first, because loading takes seconds
        from digitforge_serving.metrics import Metrics
        from digitforge_serving.models.manager import Models

        metrics = Metrics()
        self._models = Models(self._sources, self._options, metrics)
        if self._interrupted or not self._models.start():
            return False
        try:
            self._open(self._models, metrics)
        except BaseException:  # close the ports that are already open
            self.stop(0)
            raise
        return True

    def _open(self, models: Models, metrics: Metrics) -> None:
        """Open the ports and start answering requests."""
        from digitforge_serving.api.grpc import handlers
        from digitforge_serving.api.health import Health

        # REST first, because a gRPC server keeps its port until it is garbage-collected.
        self._rest = self._open_rest(models, metrics)
        self._server = grpc.server(
            # Every request in flight holds a thread, even while it waits for its computation.
            ThreadPoolExecutor(self._options.max_requests, thread_name_prefix="digitforge-grpc"),
            handlers=handlers(models, metrics, self._in_flight, self._requests, self._options),
            options=(*_GRPC_OPTIONS, *self._options.grpc_channel_arguments),
            maximum_concurrent_rpcs=self._options.max_requests,
        )
        port = self._listen(self._server)
        self._warn_of_exposure()
        self._health = Health(models)
        self._health.add_to(self._server)
        _add_reflection(self._server)
        self._target = f"{bracketed(self._options.host)}:{port}"
        self._server.start()
        if self._rest is not None:
            self._rest.start()
        self._watch_configuration(models)

    def stop(self, grace_s: float | None = None) -> None:
        """Reject new requests, let requests in flight finish, and stop.

        Args:
            grace_s: seconds that requests in flight may take; None: ``grace_seconds`` of the options.
        """
        self._interrupted = True
        if self._watch is not None:
            self._watch.stop()
        if self._health is not None:
            self._health.drain()
        ends = time.monotonic() + (self._options.grace_seconds if grace_s is None else grace_s)
        self._in_flight.drain(ends - time.monotonic())
        # gRPC answers a call that arrives at this moment only when its own grace period ends, so that is short.
        ended = None if self._server is None else self._server.stop(_CLOSE_S)
        if self._rest is not None:
            self._rest.stop(max(_CLOSE_S, ends - time.monotonic()))
        while ended is not None and not ended.wait(_POLL_S):  # Python handles a second signal between two waits
            pass
        if self._models is not None:
            self._models.stop()

    def interrupt(self) -> None:
        """End a `start` that waits for a model. Safe to call from a signal handler."""
        self._interrupted = True
        if self._models is not None:
            self._models.interrupt()

    def _listen(self, server: grpc.Server) -> int:
        """Open the gRPC port and the Unix socket; return the port's number."""
        address = f"{bracketed(self._options.host)}:{self._options.port}"
        try:
            if self._options.tls is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, _credentials(self._options.tls))
            if self._options.grpc_socket_path is not None:
                address = f"unix:{self._options.grpc_socket_path.absolute()}"
                server.add_insecure_port(address)
        except RuntimeError as error:
            raise DigitforgeError(
                f"gRPC cannot listen on {address}: it is in use, cannot be created, or the certificate and key do not "
                f"match; choose another address, or check the certificate and key ({error})"
            ) from error
        return port

    def _open_rest(self, models: Models, metrics: Metrics) -> HttpServer | None:
        options = self._options
        if options.rest_api_port is None:
            return None
        from digitforge_serving.api.http_server import HttpServer, Limits
        from digitforge_serving.api.rest import create_app
        from digitforge_serving.page.document import page_routes

        limits = Limits(
            body_bytes=options.rest_api_max_body_mib * 2**20, receive_s=options.rest_api_receive_timeout_in_ms / 1000
        )
        app = create_app(
            models,
            metrics,
            self._in_flight,
            self._requests,
            max_body_bytes=limits.body_bytes,
            metrics_path=options.metrics_path,
            timeout_s=options.rest_api_timeout_in_ms / 1000 or None,
            cors=options.rest_api_enable_cors_support,
            pages=page_routes(self._page_info),
        )
        try:
            return HttpServer(app, host=options.host, port=options.rest_api_port, limits=limits)
        except OSError as error:
            raise port_error(options.host, options.rest_api_port, "--rest-api-port", error) from error

    def _page_info(self) -> PageInfo:
        from digitforge_serving.page.document import PageInfo

        return PageInfo(
            models=sorted(self.serving),
            grpc_port=int(self._target.rpartition(":")[2]),
            grpc_tls=self._options.tls is not None,
            metrics_path=self._options.metrics_path,
        )

    def _watch_configuration(self, models: Models) -> None:
        from digitforge_serving.api.management import ConfigWatch

        file, every_s = self._options.model_config_file, self._options.model_config_file_poll_wait_seconds
        if file is not None and every_s > 0:
            self._watch = ConfigWatch(file, models, every_s=every_s)
            self._watch.start(self._sources)

    def _warn_of_exposure(self) -> None:
        options = self._options
        if is_loopback(options.host):
            return
        if options.tls is None:
            log.warning(
                "listening on %s without TLS: anyone who can reach this machine can use the models", options.host
            )
        elif not options.tls.client_verify:
            log.warning(
                "listening on %s without client_verify: anyone who can reach this machine can use the models",
                options.host,
            )
        elif self._rest is not None:
            log.warning("listening on %s with REST, which has no TLS: anyone can use it", options.host)
        if options.model_root is not None:
            log.warning(
                "--allow-reload lets anyone who can use the models run any SavedModel below %s", options.model_root
            )


class EmbeddedServer:
    """A server in this process, for tests and notebooks.

    Example::

        with EmbeddedServer() as target:
            ...  # target is an address such as "127.0.0.1:41234"
    """

    def __init__(
        self, model_base_path: str | Path | None = None, *, model_name: str = contract.MODEL_NAME, **options: Any
    ) -> None:
        """Choose the model to serve. The server starts when the ``with`` block is entered.

        Args:
            model_base_path: the folder that contains the versions of the model; None: the shipped generator.
            model_name: name that clients use for the model.
            **options: fields of `ServerOptions`. By default, ``port`` is 0 (any free port) and ``grace_seconds`` is 5.

        Raises:
            DataError: this installation lacks the shipped generator.
        """
        base_path = shipped_models() / contract.MODEL_NAME if model_base_path is None else Path(model_base_path)
        source = ModelSource(name=model_name, base_path=base_path)
        self._server = Server([source], replace(ServerOptions(port=0, grace_seconds=5.0), **options))

    @needs_extra("serving", "EmbeddedServer")
    def __enter__(self) -> str:
        """Load the model and open the port.

        Returns:
            The address for gRPC clients.

        Raises:
            DataError: the model cannot be loaded.
            DigitforgeError: a port cannot be opened.
            MissingExtraError: the extra ``serving`` is not fully installed.
        """
        self._server.start()
        return self._server.target

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.server_key, tls.server_cert)], root_certificates=tls.custom_ca, require_client_auth=tls.client_verify
    )


def _add_reflection(server: grpc.Server) -> None:
    """Add gRPC reflection, for tools such as grpcurl."""
    from grpc_health.v1 import health
    from grpc_reflection.v1alpha import reflection
    from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

    described = [
        *prediction_service_pb2.DESCRIPTOR.services_by_name.values(),
        *model_service_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    names = [*(service.full_name for service in described), health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
