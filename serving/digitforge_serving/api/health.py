"""``grpc.health.v1``: SERVING while every configured model has a version that serves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from digitforge_serving.api.grpc import MODEL_SERVICE, PREDICTION_SERVICE
from digitforge_serving.models.manager import Models

_WATCH_THREADS: Final = 4  # threads that send changes to watching clients


class Health:
    """The health of the whole server (the service name ``""``) and of its two services."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._servicer = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(_WATCH_THREADS)
        )
        self.update()
        models.on_change = self.update

    def add_to(self, server: Any) -> None:
        """Register the health service on a ``grpc.server``."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def update(self) -> None:
        """Update the health from the current state of the models."""
        serving = all(self._models.serving().get(name) for name in self._models.names())
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", PREDICTION_SERVICE, MODEL_SERVICE):
            self._servicer.set(service, status)

    def drain(self) -> None:
        """Report NOT_SERVING from now on, whatever the models do."""
        self._servicer.enter_graceful_shutdown()
