"""Tracking with MLflow: a folder of digitforge belongs to one run of MLflow.

The folder remembers its run in ``mlflow.json``. So a command that is repeated after an interruption continues the same
run. MLflow's own environment variables say where runs are stored, such as MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from digitforge_client.common.extras import needs_extra
from digitforge_client.common.files import replacing
from digitforge_client.common.json_text import parse_json
from digitforge_client.errors import DataError, DigitforgeError, InvalidInputError

#: What ``--track`` takes.
TRACKERS: Final = ("mlflow",)
#: The folder's file that names its run.
FILE: Final = "mlflow.json"
_EXPERIMENT: Final = "digitforge"
#: MLflow's limits for one message, and for the value of a parameter.
_METRICS: Final = 1000
_PARAMETERS: Final = 100
_VALUE: Final = 6000


def check_tracker(name: str) -> None:
    """Check that tracking works, before anything is computed.

    Raises:
        InvalidInputError: there is no such tracker.
        MissingExtraError: MLflow is not installed.
        DigitforgeError: MLflow's server or store cannot be reached.
    """
    if name not in TRACKERS:
        raise InvalidInputError(f"the tracker is {name!r}; expected {' or '.join(TRACKERS)}")
    with needs_extra("mlflow", f"tracking with {name}"):
        import mlflow
    with _reached("check MLFLOW_TRACKING_URI"):
        mlflow.MlflowClient().search_experiments(max_results=1)


class Tracking:
    """The run of MLflow that belongs to a folder.

    Attributes:
        run_id: id of the run.
        position: a number that the caller chooses, such as the images seen so far. The folder remembers it.

    Raises:
        DigitforgeError: MLflow cannot be reached. Every method may raise it.
    """

    def __init__(self, folder: Path, *, advice: str) -> None:
        """Open the run of a folder, or create one.

        Args:
            folder: an existing folder.
            advice: end of the error message: what is safe, and what to do.

        Raises:
            DataError: the folder's file is damaged or cannot be written.
        """
        import mlflow

        self._folder, self._advice = folder, advice
        with _reached(advice):
            self._client = mlflow.MlflowClient()
            about = self._remembered()
            if about is None:
                name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
                found = self._client.get_experiment_by_name(name)
                experiment = self._client.create_experiment(name) if found is None else found.experiment_id
                run = self._client.create_run(experiment, run_name=folder.name)
                about = {"run_id": run.info.run_id, "position": -1}
            else:
                self._client.update_run(about["run_id"], status="RUNNING")
        self.run_id: str = about["run_id"]
        self.position: int = about["position"]
        self.remember(self.position)

    def _remembered(self) -> dict[str, Any] | None:
        path = self._folder / FILE
        try:
            about = parse_json(path.read_bytes())
            return {"run_id": str(about["run_id"]), "position": int(about["position"])}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error!r}); remove it to start another run of MLflow") from error

    def remember(self, position: int) -> None:
        """Store a position."""
        self.position = position
        with replacing(self._folder / FILE) as file:
            file.write(json.dumps({"run_id": self.run_id, "position": position}).encode())

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log parameters. MLflow keeps the first value of a parameter, so known parameters are left out."""
        from mlflow.entities import Param

        with _reached(self._advice):
            known = self._client.get_run(self.run_id).data.params
            new = [Param(_key(name), str(value)[:_VALUE]) for name, value in values.items() if _key(name) not in known]
            for first in range(0, len(new), _PARAMETERS):
                self._client.log_batch(self.run_id, params=new[first : first + _PARAMETERS])

    def metrics(self, values: list[tuple[str, float, int]]) -> None:
        """Log metrics: name, value and step."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        new = [Metric(_key(name), value, now, step) for name, value, step in values]
        with _reached(self._advice):
            for first in range(0, len(new), _METRICS):
                self._client.log_batch(self.run_id, metrics=new[first : first + _METRICS])

    def file(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or the content of a folder, in a folder of the run's artifacts."""
        with _reached(self._advice):
            if path.is_dir():
                self._client.log_artifacts(self.run_id, str(path), folder)
            else:
                self._client.log_artifact(self.run_id, str(path), folder)

    def register(self, folder: str, *, name: str, tags: Mapping[str, str], description: str) -> str:
        """Register a folder of the run's artifacts as the next version of a model.

        Returns:
            The number of the version in MLflow's registry.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

        with _reached(self._advice):
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
            source = f"{self._client.get_run(self.run_id).info.artifact_uri}/{folder}"
            made = self._client.create_model_version(
                name, source, run_id=self.run_id, tags=dict(tags), description=description
            )
        return str(made.version)

    def end(self, status: str) -> None:
        """Say how the run ended: FINISHED, FAILED or KILLED."""
        with _reached(self._advice):
            self._client.set_terminated(self.run_id, status)


def _key(name: str) -> str:
    """A name with MLflow's characters only."""
    words = name.replace("+", " and ").replace("(", "- ")
    return "".join(each if each.isalnum() or each in "_-. /:" else "" for each in words)


@contextmanager
def _reached(advice: str) -> Iterator[None]:
    """Turn MLflow's errors into ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        if isinstance(error, DigitforgeError):
            raise
        raise DigitforgeError(f"MLflow cannot be used ({str(error).splitlines()[0]}); {advice}") from error
