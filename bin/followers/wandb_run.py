"""Receiver: a run of Weights & Biases."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from visionloop.bin.followers.receiver import Cursor, advance, receiver_error
from visionloop.bin.followers.source import Row, RunSource, RunState
from visionloop.engine.types import JsonObject

STEP = "step"  # the x axis of all charts


class WandbRun:
    """A run of Weights & Biases, resumed by its id.

    W&B numbers the rows of a run and says how many it has when a run is resumed; a row is one line
    of metrics.jsonl. The rows of a batch are noted in the cursor before they are sent, so that this
    number tells after a kill which of them have arrived. Without a server (`WANDB_MODE=offline`)
    W&B cannot tell: after a kill the rows of the last batch come again, with the same numbers.

    Args:
        project: of W&B.
        name: of the run.
        source: the run that is followed.
        cursor: memory of this follower; W&B keeps its local files beside it.
    """

    def __init__(self, project: str, name: str, source: RunSource, cursor: Cursor) -> None:
        self._project, self._name, self._source, self._cursor = project, name, source, cursor
        self.label = f"W&B, project {project}"
        self._num_rows = 0
        self._last: dict[str, int] = {}

    def connect(self) -> dict[str, int]:
        """Resume the run, and find out which of the noted rows have arrived."""
        import wandb

        with reported():
            wandb.finish()  # of a connection that was lost
            self._run = wandb.init(
                project=self._project,
                id=self._cursor.id,
                name=self._name,
                dir=self._cursor.path.parent,
                resume="allow",
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    save_code=False,
                    disable_git=True,
                    x_disable_meta=True,
                    x_disable_stats=True,
                ),
            )
            self._run.define_metric(STEP)
            self._run.define_metric("*", step_metric=STEP)
        self.label = f"W&B, project {self._project}, run {self._run.id}"
        content = self._cursor.content
        self._last, self._num_rows = dict(content.get("last", {})), content.get("rows", 0)
        for noted in content.get("pending", [])[: max(0, self._run.step - self._num_rows)]:
            advance(self._last, Row(**noted))
            self._num_rows += 1
        return dict(self._last)

    def send_settings(self, settings: JsonObject) -> None:
        """Set the config of the run."""
        with reported():
            self._run.config.update(settings, allow_val_change=True)

    def send_rows(self, rows: Sequence[Row]) -> None:
        """Log a row for each line."""
        noted = {"last": self._last, "rows": self._num_rows}
        self._cursor.update(**noted, pending=[asdict(row) for row in rows])
        with reported():
            for row in rows:
                self._run.log({STEP: row.step, **row.values}, step=self._num_rows)
                self._num_rows += 1
                advance(self._last, row)
        self._cursor.update(last=self._last, rows=self._num_rows, pending=[])

    def send_state(self, state: RunState) -> None:
        """Set the state, the best evaluation and the error in the summary of the run."""
        with reported():
            self._run.summary.update({"state": state.state, "error": state.error})
            for name, value in (state.best or {}).items():
                self._run.summary[f"best/{name}"] = value

    def send_folder(self, folder: Path) -> None:
        """Log best/ as an artifact of type model; the same files make no new version."""
        import wandb

        with reported():
            artifact = wandb.Artifact(f"best-{self._cursor.id}", type="model")
            artifact.add_dir(str(folder))
            self._run.log_artifact(artifact)

    def close(self) -> None:
        """Wait until all is sent."""
        with reported():
            self._run.finish()


@contextmanager
def reported() -> Iterator[None]:
    """Raise ReceiverError for an error of W&B or of the connection."""
    import wandb

    try:
        yield
    except (wandb.Error, OSError) as error:
        raise receiver_error("wandb", error) from None
