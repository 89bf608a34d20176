"""Find, load and unload versions of models.

Checks each model's folder at an interval. Loads and warms up a new version before it unloads the version that it
replaces. A version that cannot be loaded replaces nothing, and the next lower version takes its place. Requests in
flight finish on the version they started with.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from digitforge_client.common.versions import versions
from digitforge_client.errors import DataError
from digitforge_serving.config.options import ModelSource, ServerOptions, cores
from digitforge_serving.metrics import Metrics
from digitforge_serving.models import folder, refusal
from digitforge_serving.models.batching import Array, Batcher, Compute, Feeds, Unbatched
from digitforge_serving.models.saved_model import SavedModel, Served
from digitforge_serving.models.states import AVAILABLE, END, LOADING, Version, failure
from digitforge_serving.models.warmup import warm_up

if TYPE_CHECKING:
    from tensorflow_serving.apis import model_pb2

log = logging.getLogger("digitforge.serving")

#: Interval for checking folders that have no version yet, if ``file_system_poll_wait_seconds`` is 0.
_EMPTY_FOLDER_POLL_S: Final = 1.0
_INTERRUPT_POLL_S: Final = 0.2


@dataclass(kw_only=True)
class _Model:
    source: ModelSource
    versions: dict[int, Version] = field(default_factory=dict)
    last_warning: str = ""  # the last warning about the folder, to log each warning once


class Models:
    """The models of a server. Thread-safe."""

    def __init__(self, sources: Iterable[ModelSource], options: ServerOptions, metrics: Metrics | None = None) -> None:
        self._options = options
        self._metrics = metrics or Metrics()
        self._models = {source.name: _Model(source=source) for source in sources}
        self._metrics.model_names = self._models
        self._changing = threading.Lock()  # held while versions are loaded or unloaded
        self._ready: dict[str, dict[int, Served]] = {}  # replaced but never modified, so readers need no lock
        self._loaded: weakref.WeakSet[SavedModel] = weakref.WeakSet()  # also unloaded ones that requests still use
        self._interrupted = False
        self._stopping = threading.Event()
        self._poller: threading.Thread | None = None
        #: Called when a version starts or stops serving.
        self.on_change: Callable[[], None] = lambda: None

    # -- used by requests ----------------------------------------------------------------------------------------

    def find(self, spec: model_pb2.ModelSpec) -> Served:
        """Find the version that a request asks for, by number or label. By default, the highest that serves.

        Raises:
            RefusedError: that version does not serve.
        """
        if not spec.name:
            raise refusal.invalid_argument("ModelSpec has no name specified.")
        ready = self._ready.get(spec.name, {})
        choice = spec.WhichOneof("version_choice")
        if choice is None:
            if not ready:
                raise refusal.not_found(f"Servable not found for request: Latest({spec.name})")
            return ready[max(ready)]
        version = spec.version.value if choice == "version" else self._labeled(spec)
        if version not in ready:
            raise refusal.not_found(f"Servable not found for request: Specific({spec.name}, {version})")
        return ready[version]

    def _labeled(self, spec: model_pb2.ModelSpec) -> int:
        model = self._models.get(spec.name)
        if model is None or spec.version_label not in model.source.labels:
            raise refusal.invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        return model.source.labels[spec.version_label]

    def states(self, name: str) -> dict[int, Version]:
        """Every version of a model that this server tried to load, highest first; empty for an unknown model."""
        model = self._models.get(name)
        return {} if model is None else dict(sorted(model.versions.copy().items(), reverse=True))

    def serving(self) -> dict[str, list[int]]:
        """Model name => versions that serve now, ascending. Leaves out models without such versions."""
        return {name: sorted(ready) for name, ready in self._ready.items() if ready}

    def names(self) -> list[str]:
        """Names of all configured models."""
        return list(self._models)

    # -- used by the server --------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Load all models, waiting for those whose folder is empty, then keep checking for new versions.

        Returns:
            True when every model serves; False if `stop` or `interrupt` ended the wait.

        Raises:
            DataError: a folder has versions but none of them can be loaded, or a label is not allowed yet.
        """
        self._check_labels()
        while not self._interrupted:
            self.poll()
            waiting = [model for name, model in self._models.items() if not self._ready.get(name)]
            if not waiting:
                self._watch()
                return True
            for model in waiting:
                if model.versions:
                    raise DataError(_why_unavailable(model))
            self._wait_for_versions()
        return False

    def _wait_for_versions(self) -> None:
        ends = time.monotonic() + (self._options.file_system_poll_wait_seconds or _EMPTY_FOLDER_POLL_S)
        while not self._interrupted and (left := ends - time.monotonic()) > 0:
            self._stopping.wait(min(left, _INTERRUPT_POLL_S))

    def interrupt(self) -> None:
        """End a `start` that waits. Takes no lock, so a signal handler may call it."""
        self._interrupted = True

    def stop(self) -> None:
        """Stop checking for versions, and cancel all computations, including those that wait."""
        self.interrupt()
        self._stopping.set()
        for loaded in list(self._loaded):
            loaded.close()
        if self._poller is not None:
            self._poller.join()
        with self._changing:
            self._ready = {}

    def poll(self) -> None:
        """Check all folders: load new versions, then unload those that are no longer wanted."""
        with self._changing:
            for model in list(self._models.values()):
                found = self._find_versions(model)
                if found is not None:
                    self._load_and_unload(model, found)

    def reconfigure(self, sources: Sequence[ModelSource]) -> str:
        """Serve exactly these models: load new models, unload models that are not listed.

        Returns:
            Which models did not become available, and why. Empty if all did.

        Raises:
            RefusedError: a base path does not exist, or a label names a version that does not serve. Nothing changes.
        """
        with self._changing:
            for source in sources:
                self._check_source(source)
            names = {source.name for source in sources}
            removed = [model for name, model in self._models.items() if name not in names]
            models = {**self._models}
            for source in sources:
                kept = models.get(source.name, _Model(source=source))
                models[source.name] = replace(kept, source=source)
            self._models = models  # removed models answer until they are unloaded below
        self.poll()
        with self._changing:
            for model in removed:
                for number, version in model.versions.items():
                    if version.served is not None:
                        self._unload(model, number)
            self._models = {name: self._models[name] for name in names}
            self._metrics.model_names = self._models
        unavailable = [_why_unavailable(model) for name, model in self._models.items() if not self._ready.get(name)]
        self.on_change()
        return f"{len(unavailable)} model(s) did not become available: {'; '.join(unavailable)}" if unavailable else ""

    def _check_source(self, source: ModelSource) -> None:
        try:
            source.check()
        except DataError as error:
            raise refusal.failed_precondition(str(error)) from error
        model = self._models.get(source.name)
        in_use = {} if model is None else model.source.labels
        for label, version in source.labels.items():
            is_new = in_use.get(label, version) == version
            if is_new and self._options.allow_version_labels_for_unavailable_models:
                continue
            if version not in self._ready.get(source.name, {}):
                raise refusal.failed_precondition(
                    f"Request to assign label to version {version} of model {source.name}, which is not currently "
                    "available for inference"
                )

    def _watch(self) -> None:
        if self._options.file_system_poll_wait_seconds <= 0:
            return

        def keep_polling() -> None:
            while not self._stopping.wait(self._options.file_system_poll_wait_seconds):
                self.poll()

        self._poller = threading.Thread(target=keep_polling, name="digitforge-models", daemon=True)
        self._poller.start()

    def _check_labels(self) -> None:
        """Reject all labels, as TensorFlow Serving does, because no version is loaded at startup."""
        if self._options.allow_version_labels_for_unavailable_models:
            return
        for model in self._models.values():
            for label, version in model.source.labels.items():
                raise DataError(
                    f"label {label!r} of model {model.source.name} names version {version}, which is not loaded at "
                    "startup; remove the label or pass --allow_version_labels_for_unavailable_models=true"
                )

    # -- loading and unloading; the lock must be held ------------------------------------------------------------

    def _find_versions(self, model: _Model) -> dict[int, Path] | None:
        """Version => its folder. None if the model's folder cannot be read; then its versions keep serving."""
        base, name = model.source.base_path, model.source.name
        try:
            found = versions(base)
        except OSError as error:
            _warn_once(model, f"the folder {base} of model {name} cannot be read: {error.strerror}")
            return None
        warning = "" if found else f"waiting for a version of model {name}: {base} has no folder 1, 2, …"
        if ignored := [path.name for paths in found.values() for path in paths[:-1]]:
            warning = f"ignoring {', '.join(ignored)} in {base}: another folder has the same version number"
        _warn_once(model, warning)
        return {number: paths[-1] for number, paths in found.items()}

    def _load_and_unload(self, model: _Model, found: dict[int, Path]) -> None:
        wanted = model.source.choose(list(found))
        loaded = [number for number in wanted if self._load(model, number, found[number])]
        serving = {number for number, version in model.versions.items() if version.state == AVAILABLE}
        # Other versions take the place of those that cannot be loaded: the next lower ones with the policy `latest`,
        # otherwise those that serve already.
        candidates = found.keys() if model.source.policy == "latest" else found.keys() & serving
        for number in sorted(candidates - set(wanted), reverse=True):
            if len(loaded) == len(wanted):
                break
            if self._load(model, number, found[number]):
                loaded.append(number)
        if loaded or not wanted:
            for number in serving - set(loaded):
                self._unload(model, number)

    def _load(self, model: _Model, number: int, path: Path) -> bool:
        """Load a version unless it serves already, or failed before and has not changed since.

        Returns:
            Whether the version serves.
        """
        version = model.versions.get(number)
        if version is not None and version.state == AVAILABLE:
            return True
        stamp = folder.stamp(path)
        if version is not None and version.code != grpc.StatusCode.OK and version.stamp == stamp:
            return False
        version = model.versions[number] = Version(state=LOADING)
        log.info("loading version %d of model %s from %s …", number, model.source.name, path)
        start = time.monotonic()
        try:
            folder.check(path, root=model.source.root)
            loaded = self._load_saved_model(path)
            served = Served(
                name=model.source.name,
                version=number,
                model=loaded,
                compute=self._create_compute(model.source.name, loaded),
            )
            if self._options.enable_model_warmup:
                warm_up(served, path)
        except Exception as error:  # noqa: BLE001 - a damaged folder can raise anything; the server must go on
            version.code, version.text = failure(error)
            version.stamp, version.state = stamp, END
            self._metrics.count_load(str(path), "fail")
            log.error("version %d of model %s cannot be loaded: %s", number, model.source.name, version.text)
            return False
        version.served, version.state = served, AVAILABLE
        self._metrics.count_load(str(path), "success")
        self._publish(model)
        took_s = time.monotonic() - start
        log.info("loaded version %d of model %s in %.1f s", number, model.source.name, took_s)
        return True

    def _load_saved_model(self, path: Path) -> SavedModel:
        loaded = SavedModel(
            path,
            tags=self._options.saved_model_tags,
            intra_op_threads=self._options.tensorflow_intra_op_parallelism,
            inter_op_threads=self._options.tensorflow_inter_op_parallelism,
        )
        self._loaded.add(loaded)
        return loaded

    def _create_compute(self, name: str, loaded: SavedModel) -> Compute:
        def run(feeds: Feeds, fetches: Sequence[str]) -> list[Array]:
            start = time.monotonic()
            values = loaded.run(feeds, fetches)
            self._metrics.observe_runtime(name, 1e6 * (time.monotonic() - start))
            return values

        if self._options.batching is not None:
            return Batcher(run, self._options.batching, self._metrics.observe_batch)
        return Unbatched(run, max_running=self._options.grpc_max_threads or 2 * cores())

    def _unload(self, model: _Model, number: int) -> None:
        version = model.versions[number]
        version.state, version.served = END, None
        self._publish(model)
        gc.collect()  # a graph contains reference cycles; free its memory now
        log.info("unloaded version %d of model %s", number, model.source.name)

    def _publish(self, model: _Model) -> None:
        ready = {number: version.served for number, version in model.versions.items() if version.served}
        self._ready = {**self._ready, model.source.name: ready}
        self.on_change()


def _warn_once(model: _Model, text: str) -> None:
    if text and model.last_warning != text:
        log.warning("%s", text)
    model.last_warning = text


def _why_unavailable(model: _Model) -> str:
    failures = [f"version {number}: {version.text}" for number, version in model.versions.items()]
    return (
        f"model {model.source.name} did not become available: no version in {model.source.base_path} can be loaded; "
        f"replace them, or publish a version that works. {'; '.join(failures)}"
    )
