"""Receiver: a run of an MLflow tracking server, database or folder."""

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from visionloop.bin.followers.receiver import Cursor, receiver_error
from visionloop.bin.followers.source import Row, RunSource, RunState
from visionloop.engine.types import JsonObject

if TYPE_CHECKING:
    from mlflow.entities import Run

STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
    "lost": "KILLED",
}
# limits of MLflow
METRICS_AT_ONCE, PARAMS_AT_ONCE, PARAM_LENGTH = 1000, 100, 6000


class MlflowRun:
    """A run of MLflow, found again by its tag `visionloop.id`.

    The store says which step of each metric was the last one. A batch is one transaction there.

    Args:
        uri: of the store: http://HOST:5000, sqlite:///FILE.
        experiment: name of the experiment; made if it is not there.
        name: of the run.
        source: the run that is followed.
        cursor: memory of this follower.
    """

    def __init__(
        self, uri: str, experiment: str, name: str, source: RunSource, cursor: Cursor
    ) -> None:
        # nothing but the tracking server is asked
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        for library in ("mlflow", "alembic"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._experiment, self._name, self._source, self._cursor = experiment, name, source, cursor
        with reported():
            self._client = mlflow.MlflowClient(tracking_uri=uri)
        self.label = f"MLflow, experiment {experiment}"
        self._run_id = ""
        self._params: set[str] = set()

    def connect(self) -> dict[str, int]:
        """Find the run by its tag or make it, and read its last steps."""
        with reported():
            experiment = self._experiment_id()
            runs = self._client.search_runs(
                [experiment],
                f"tags.`visionloop.id` = '{self._cursor.id}'",
                max_results=1,
            )
            run = runs[0] if runs else self._make_run(experiment)
            self._run_id = run.info.run_id
            self._params = set(run.data.params)
            self.label = f"MLflow, experiment {self._experiment}, run {self._run_id}"
            # the latest metrics of a run have their steps in this form alone
            return {metric.key: metric.step for metric in run.data.to_proto().metrics}

    def _make_run(self, experiment: str) -> "Run":
        started = self._source.started() or time.time()
        return self._client.create_run(
            experiment,
            start_time=round(1000 * started),
            run_name=self._name,
            tags={
                "visionloop.id": self._cursor.id,
                "visionloop.folder": str(self._source.folder),
            },
        )

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            try:
                return str(self._client.create_experiment(self._experiment))
            except MlflowException:
                # made by another follower in the meantime
                experiment = self._client.get_experiment_by_name(self._experiment)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

    def send_settings(self, settings: JsonObject) -> None:
        """Log those settings as params that the run does not have: MLflow lets none change."""
        from mlflow.entities import Param

        params = [
            Param(name, (value if isinstance(value, str) else json.dumps(value))[:PARAM_LENGTH])
            for name, value in settings.items()
            if name not in self._params
        ]
        with reported():
            for first in range(0, len(params), PARAMS_AT_ONCE):
                batch = params[first : first + PARAMS_AT_ONCE]
                self._client.log_batch(self._run_id, params=batch, synchronous=True)
        self._params |= settings.keys()

    def send_rows(self, rows: Sequence[Row]) -> None:
        """Log the values as metrics by step, with the time of their line."""
        from mlflow.entities import Metric

        metrics = [
            Metric(key, value, round(1000 * row.time), row.step)
            for row in rows
            for key, value in row.values.items()
        ]
        with reported():
            for first in range(0, len(metrics), METRICS_AT_ONCE):
                batch = metrics[first : first + METRICS_AT_ONCE]
                self._client.log_batch(self._run_id, metrics=batch, synchronous=True)

    def send_state(self, state: RunState) -> None:
        """Set the status of the run, and tags with the state, the best evaluation and the error."""
        tags = {"state": state.state, "error": state.error}
        if state.best is not None:
            tags |= {f"best_{name}": str(state.best[name]) for name in ("metric", "score", "step")}
        status = STATUS.get(state.state, "RUNNING")
        with reported():
            for name, text in tags.items():
                if text is not None:
                    self._client.set_tag(self._run_id, f"visionloop.{name}", text)
            if status == "RUNNING":
                self._client.update_run(self._run_id, status=status)
            else:
                self._client.set_terminated(self._run_id, status)

    def send_folder(self, folder: Path) -> None:
        """Upload best/; files of the same name are replaced."""
        with reported():
            self._client.log_artifacts(self._run_id, str(folder), folder.name)

    def close(self) -> None:
        """Return: nothing is buffered."""


@contextmanager
def reported() -> Iterator[None]:
    """Raise ReceiverError for an error of MLflow or of the connection."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise receiver_error("mlflow", error) from None
