"""Which versions of which models are served: found in folders, loaded, kept until a better one serves, unloaded.

A folder is looked at again every few seconds. A new version is loaded and warmed up before the one that it replaces
is let go; a version that cannot be loaded changes nothing for those that serve. Requests in flight keep the version
that they began with.
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
from digitforge_serving.models.batching import Array, Batcher, Compute, Feeds, OneByOne
from digitforge_serving.models.saved_model import SavedModel, Served
from digitforge_serving.models.states import AVAILABLE, END, LOADING, Version, failure
from digitforge_serving.models.warmup import warm_up

if TYPE_CHECKING:
    from tensorflow_serving.apis import model_pb2

log = logging.getLogger("digitforge.serving")

#: Between two looks at a folder that has no version yet, where the options ask for one look only.
_FIRST_WAIT_S: Final = 1.0


@dataclass(kw_only=True)
class _Model:
    source: ModelSource
    versions: dict[int, Version] = field(default_factory=dict)
    complaint: str = ""  # said last about the folder, so that it is said once


class Models:
    """The models of a server. Safe to use from any thread."""

    def __init__(self, sources: Iterable[ModelSource], options: ServerOptions, metrics: Metrics | None = None) -> None:
        self._options = options
        self._metrics = metrics or Metrics()
        self._models = {source.name: _Model(source=source) for source in sources}
        self._changing = threading.Lock()  # held by whoever loads and unloads
        self._ready: dict[str, dict[int, Served]] = {}  # replaced, never changed: readers need no lock
        self._loaded: weakref.WeakSet[SavedModel] = weakref.WeakSet()  # also those that only requests in flight hold
        self._stopping = threading.Event()
        self._poller: threading.Thread | None = None
        #: Called after a version began or ceased to serve.
        self.on_change: Callable[[], None] = lambda: None

    # -- what requests ask ---------------------------------------------------------------------------------------

    def find(self, spec: model_pb2.ModelSpec) -> Served:
        """The version that a request means: a number, a label, or the highest that serves.

        Raises:
            RefusedError: there is none.
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
        """Every version that this server ever wanted of a model, highest first; empty for an unknown model."""
        model = self._models.get(name)
        return {} if model is None else dict(sorted(model.versions.copy().items(), reverse=True))

    def serving(self) -> dict[str, list[int]]:
        """Versions that serve now, by model, ascending; a model without any is not in it."""
        return {name: sorted(ready) for name, ready in self._ready.items() if ready}

    def names(self) -> list[str]:
        """Models that are configured."""
        return list(self._models)

    # -- what the server tells -----------------------------------------------------------------------------------

    def start(self) -> bool:
        """Load what there is, wait for a model whose folder is empty, and keep looking from then on.

        Returns:
            Whether every model serves; false when `stop` was called before.

        Raises:
            DataError: a folder has versions of which none can be loaded.
        """
        self._check_labels()
        while not self._stopping.is_set():
            self.look()
            waiting = [model for name, model in self._models.items() if not self._ready.get(name)]
            if not waiting:
                self._watch()
                return True
            for model in waiting:
                if model.versions:
                    raise DataError(_why_unavailable(model))
            self._stopping.wait(self._options.file_system_poll_wait_seconds or _FIRST_WAIT_S)
        return False

    def interrupt(self) -> None:
        """Look no more, and make a `start` that waits return."""
        self._stopping.set()

    def stop(self) -> None:
        """Look no more, and compute nothing from now on, neither what waits nor what has begun."""
        self.interrupt()
        for loaded in list(self._loaded):
            loaded.close()
        if self._poller is not None:
            self._poller.join()
        with self._changing:
            self._ready = {}

    def look(self) -> None:
        """Load the versions that are wanted and new, then let go of those that are wanted no more."""
        with self._changing:
            for model in list(self._models.values()):
                found = self._found(model)
                if found is not None:
                    self._load_and_unload(model, found)

    def reconfigure(self, sources: Sequence[ModelSource]) -> None:
        """Serve these models from now on: load those that are new, unload those that are not among them.

        Raises:
            RefusedError: a base path does not exist, or a label names a version that does not serve, and nothing is
                changed; or a new model has no version that can be loaded.
        """
        with self._changing:
            for source in sources:
                self._check_change(source)
            names = {source.name for source in sources}
            gone = [model for name, model in self._models.items() if name not in names]
            models = {**self._models}
            for source in sources:
                kept = models.get(source.name, _Model(source=source))
                models[source.name] = replace(kept, source=source)
            self._models = models  # models that go answer until they are unloaded, a moment from now
        self.look()
        with self._changing:
            for model in gone:
                for number, version in model.versions.items():
                    if version.served is not None:
                        self._unload(model, number)
            self._models = {name: self._models[name] for name in names}
        dark = sorted(name for name in names if not self._ready.get(name))
        self.on_change()
        if dark:
            raise refusal.RefusedError(
                grpc.StatusCode.UNKNOWN, f"Some models did not become available: {{{', '.join(dark)}}}"
            )

    def _check_change(self, source: ModelSource) -> None:
        try:
            source.check()
        except DataError as error:
            raise refusal.failed_precondition(str(error)) from error
        if self._options.allow_version_labels_for_unavailable_models:
            return
        for version in source.labels.values():
            if version not in self._ready.get(source.name, {}):
                raise refusal.failed_precondition(
                    f"Request to assign label to version {version} of model {source.name}, which is not currently "
                    "available for inference"
                )

    def _watch(self) -> None:
        if self._options.file_system_poll_wait_seconds <= 0:
            return

        def keep_looking() -> None:
            while not self._stopping.wait(self._options.file_system_poll_wait_seconds):
                self.look()

        self._poller = threading.Thread(target=keep_looking, name="digitforge-models", daemon=True)
        self._poller.start()

    def _check_labels(self) -> None:
        """TensorFlow Serving will not start with a label, because nothing is loaded when it reads its configuration."""
        if self._options.allow_version_labels_for_unavailable_models:
            return
        for model in self._models.values():
            for label, version in model.source.labels.items():
                raise DataError(
                    f"label {label!r} names version {version} of model {model.source.name}, which is not loaded when "
                    "the configuration is read: start with --allow_version_labels_for_unavailable_models=true"
                )

    # -- loading and unloading, with the lock held ---------------------------------------------------------------

    def _found(self, model: _Model) -> dict[int, Path] | None:
        """Versions in the folder, and where; None when it cannot be read, and nothing follows from that."""
        base, name = model.source.base_path, model.source.name
        try:
            found = versions(base)
        except OSError as error:
            _complain(model, f"the folder {base} of model {name} cannot be read: {error.strerror}")
            return None
        complaint = "" if found else f"waiting for a version of model {name}: {base} has no folder 1, 2, …"
        if ignored := [path.name for paths in found.values() for path in paths[:-1]]:
            complaint = f"ignoring {', '.join(ignored)} in {base}: another folder there is named by the same number"
        _complain(model, complaint)
        return {number: paths[-1] for number, paths in found.items()}

    def _load_and_unload(self, model: _Model, found: dict[int, Path]) -> None:
        wanted = model.source.choose(list(found))
        for number in wanted:
            self._load(model, number, found[number])
        serving = [number for number, version in model.versions.items() if version.state == AVAILABLE]
        # Until one of the versions that are wanted serves, those that serve stay.
        if not wanted or set(wanted) & set(serving):
            for number in set(serving) - set(wanted):
                self._unload(model, number)

    def _load(self, model: _Model, number: int, path: Path) -> None:
        version = model.versions.get(number)
        if version is not None and version.state == AVAILABLE:
            return
        stamp = folder.stamp(path)
        if version is not None and version.code != grpc.StatusCode.OK and version.stamp == stamp:
            return
        version = model.versions[number] = Version(state=LOADING)
        try:
            loaded = self._read(path)
            served = Served(
                name=model.source.name, version=number, model=loaded, compute=self._computing(model.source.name, loaded)
            )
            if self._options.enable_model_warmup:
                warm_up(served, path)
        except Exception as error:  # noqa: BLE001 - a damaged folder raises anything, and must not end the server
            version.code, version.text = failure(error)
            version.stamp, version.state = stamp, END
            self._metrics.loaded(str(path), "fail")
            log.error("version %d of model %s cannot be loaded: %s", number, model.source.name, version.text)
            return
        version.served, version.state = served, AVAILABLE
        self._metrics.loaded(str(path), "success")
        self._publish(model)
        log.info("loaded version %d of model %s from %s", number, model.source.name, path)

    def _read(self, path: Path) -> SavedModel:
        loaded = SavedModel(
            path,
            tags=self._options.saved_model_tags,
            intra_op_threads=self._options.tensorflow_intra_op_parallelism,
            inter_op_threads=self._options.tensorflow_inter_op_parallelism,
        )
        self._loaded.add(loaded)
        return loaded

    def _computing(self, name: str, loaded: SavedModel) -> Compute:
        def run(feeds: Feeds, fetches: Sequence[str]) -> list[Array]:
            start = time.monotonic()
            values = loaded.run(feeds, fetches)
            self._metrics.ran(name, 1e6 * (time.monotonic() - start))
            return values

        if self._options.batching is not None:
            return Batcher(run, self._options.batching, self._metrics.batched)
        return OneByOne(run, at_once=self._options.grpc_max_threads or 4 * cores())

    def _unload(self, model: _Model, number: int) -> None:
        version = model.versions[number]
        version.state, version.served = END, None
        self._publish(model)
        gc.collect()  # a graph is a circle of references; its memory should go now, not at some time
        log.info("unloaded version %d of model %s", number, model.source.name)

    def _publish(self, model: _Model) -> None:
        ready = {number: version.served for number, version in model.versions.items() if version.served}
        self._ready = {**self._ready, model.source.name: ready}
        self.on_change()


def _complain(model: _Model, text: str) -> None:
    if text and model.complaint != text:
        log.warning("%s", text)
    model.complaint = text


def _why_unavailable(model: _Model) -> str:
    failures = [f"version {number}: {version.text}" for number, version in model.versions.items()]
    return f"model {model.source.name} in {model.source.base_path} cannot be served; {'; '.join(failures)}"
