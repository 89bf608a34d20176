"""Changing which models are served while the server runs: by request, or by a configuration file that is watched."""

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
    """Serve what a ``HandleReloadConfigRequest`` lists, and nothing else.

    Raises:
        RefusedError: the configuration cannot be applied; the one before stays.
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
    """Reads a model configuration file again and again, and applies it when its models have changed."""

    def __init__(self, path: Path, models: Models, *, every_s: float) -> None:
        self._path = path
        self._models = models
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="digitforge-config", daemon=True)

    def start(self, applied: tuple[ModelSource, ...]) -> None:
        """Begin; *applied* is what the server serves already."""
        self._applied = applied
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        said = ""
        while not self._stopping.wait(self._every_s):
            try:
                sources = read_model_config(self._path)
                if sources != self._applied:
                    self._models.reconfigure(sources)
                    self._applied, said = sources, ""
                    log.info("applied %s", self._path)
            except (DigitforgeError, refusal.RefusedError) as error:
                if said != str(error):  # once, not every few seconds
                    said = str(error)
                    log.error("the configuration stays as it was: %s", error)
