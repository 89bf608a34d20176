"""Change which models are served while the server runs: by request, or by watching a configuration file."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from tensorflow_serving.apis import model_management_pb2

from digitforge_client.errors import DigitforgeError, InvalidInputError
from digitforge_serving.config.options import ModelSource, model_sources, read_model_config
from digitforge_serving.models import refusal
from digitforge_serving.models.manager import Models

log = logging.getLogger("digitforge.serving")


def reload(
    models: Models, request: model_management_pb2.ReloadConfigRequest
) -> model_management_pb2.ReloadConfigResponse:
    """Serve exactly the models that a ``HandleReloadConfigRequest`` lists.

    Raises:
        RefusedError: the configuration cannot be applied, or one of its models did not become available.
    """
    if request.config.WhichOneof("config") != "model_config_list":
        raise refusal.invalid_argument(
            "ServerConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
        )
    try:
        sources = model_sources(request.config)
    except InvalidInputError as error:
        raise refusal.invalid_argument(str(error)) from error
    models.reconfigure(sources)
    response = model_management_pb2.ReloadConfigResponse()
    response.status.SetInParent()
    return response


class ConfigWatch:
    """Watches a model configuration file and applies its changes."""

    def __init__(self, path: Path, models: Models, *, every_s: float) -> None:
        self._path = path
        self._models = models
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="digitforge-config", daemon=True)

    def start(self, applied: tuple[ModelSource, ...]) -> None:
        """Start watching; *applied* is the configuration that the server has now."""
        self._applied = applied
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        last_error = ""
        while not self._stopping.wait(self._every_s):
            try:
                sources = read_model_config(self._path)
                if sources != self._applied:
                    self._models.reconfigure(sources)
                    self._applied, last_error = sources, ""
                    log.info("applied the model configuration %s", self._path)
            except (DigitforgeError, refusal.RefusedError) as error:
                if last_error != str(error):  # log each error once
                    last_error = str(error)
                    log.error("cannot apply the model configuration %s: %s", self._path, error)
