"""The services of a server, which its endpoints share."""

from starlette.requests import Request

from visionloop.bin.web.config import StudioConfig
from visionloop.bin.web.inference.pool import PredictorPool
from visionloop.bin.web.jobs.elsewhere import TrainingElsewhere
from visionloop.bin.web.jobs.queue import JobQueue
from visionloop.bin.web.jobs.store import JobStore
from visionloop.bin.web.runs.archive import Hashes
from visionloop.bin.web.runs.index import RunIndex
from visionloop.bin.web.runs.reader import RunReader
from visionloop.bin.web.runs.streams import EventStreams


class Studio:
    """Services of one server.

    Args:
        config: of the server.
        token: of the installation.
    """

    def __init__(self, config: StudioConfig, token: str) -> None:
        self.config, self.token = config, token
        self.store = JobStore(config.database)
        self.runs, self.reader = RunIndex(config.runs), RunReader()
        self.queue = JobQueue(self.store, config.jobs, TrainingElsewhere(self.runs))
        self.predictors = PredictorPool(config.state / "predictions", config.limits)
        self.hashes = Hashes()
        self.streams = EventStreams(config.limits.event_streams)

    def start(self) -> None:
        """Start the threads of the services."""
        self.queue.start()
        self.predictors.start()
        self.runs.start()

    def close(self) -> None:
        """End the threads. Jobs go on."""
        self.predictors.close()
        self.streams.close()
        self.runs.close()
        self.queue.close()
        self.store.close()


def studio_of(request: Request) -> Studio:
    """Return the services, as a dependency of endpoints."""
    studio = request.app.state.studio
    assert isinstance(studio, Studio)
    return studio
