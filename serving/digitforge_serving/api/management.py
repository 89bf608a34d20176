"""Change which models are served while the server runs: by request, or by watching a configuration file."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import grpc
from tensorflow_serving.apis import model_management_pb2

from digitforge_client.errors import DigitforgeError, InvalidInputError
from digitforge_serving.config.options import ModelSource, model_sources, read_model_config
from digitforge_serving.models import folder, refusal
from digitforge_serving.models.manager import Models

log = logging.getLogger("digitforge.serving")


def reload(
    models: Models, request: model_management_pb2.ReloadConfigRequest, *, root: Path | None
) -> model_management_pb2.ReloadConfigResponse:
    """Serve exactly the models that a ``HandleReloadConfigRequest`` lists.

    Args:
        models: the models to change.
        request: the request.
        root: accept base paths below this folder, symbolic links resolved; None: reject every request.

    Raises:
        RefusedError: the server does not accept the request, the configuration cannot be applied, or one of its models
            did not become available.
    """
    if root is None:
        raise refusal.permission_denied(
            "HandleReloadConfigRequest is off; to accept it, start the server with --allow-reload and --model-root"
        )
    if request.config.WhichOneof("config") != "model_config_list":
        raise refusal.invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported"
        )
    try:
        sources = [replace(source, root=root) for source in model_sources(request.config)]
    except InvalidInputError as error:
        raise refusal.invalid_argument(str(error)) from error
    for source in sources:
        if "\0" in str(source.base_path) or not folder.is_below(source.base_path, root):
            raise refusal.permission_denied(
                f"the base path {source.base_path} of model {source.name} is not below the folder of --model-root"
            )
    unavailable = models.reconfigure(sources)
    if unavailable:
        raise refusal.RefusedError(grpc.StatusCode.UNKNOWN, unavailable)
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
                sources, unavailable = read_model_config(self._path), ""
                if sources != self._applied:
                    unavailable = self._models.reconfigure(sources)
                    self._applied = sources
                    log.info("applied the model configuration %s", self._path)
                if unavailable:  # `Models` tries again when the files change
                    log.error("%s", unavailable)
                last_error = ""
            except (DigitforgeError, refusal.RefusedError) as error:
                if last_error != str(error):  # log each error once
                    last_error = str(error)
                    log.error("cannot apply the model configuration %s: %s", self._path, error)
