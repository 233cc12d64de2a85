"""Runs of the toy task that are stopped after any step, and all that they write."""

import hashlib

import torch.utils.tensorboard  # noqa: F401 - once here, not in every forked rank
from toy_task import ToyTask

from visionloop.engine.testing.short_runs import StopAfter, logged
from visionloop.engine.train import train

STEPS = 12  # of 12 samples out of 40: the fourth epoch begins before the end
SETTINGS = dict(
    steps=STEPS,
    batch_size=12,
    lr=1e-2,
    threads=1,
    device="cpu",
    precision="fp32",
    log_every=1,
    eval_every=4,
    save_every=5,
    keep=2,
)


class StoppingToy(ToyTask):
    """Raises the run's stop flag in the step after which it is to stop."""

    stop = None

    def __init__(self, config):
        super().__init__(config)
        if StoppingToy.stop is not None:
            flag = StopAfter(self, StoppingToy.stop)
            StoppingToy.flag = flag


class LateFlag:
    """A flag that exists once the task does; until then nobody asks."""

    def __call__(self):
        return StoppingToy.stop is not None and StoppingToy.flag.requested

    def install(self): ...

    def uninstall(self): ...


def run(output, stop_after, settings):
    StoppingToy.stop = stop_after
    result = train(StoppingToy, output=str(output), stop=LateFlag(), **settings)
    return [result.state, result.step]


def bytes_of(output):
    """SHA-256 of all files of the last checkpoint, of best/ and of records, and logged numbers."""
    folders = [
        output / "checkpoints" / f"step_{STEPS:08d}",
        output / "best",
        *(output / "evaluations").iterdir(),
    ]
    files = [path for folder in folders for path in folder.iterdir()]
    hashes = {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    assert len(hashes) >= 6 + 3 + 16  # three records, images beside two of them at least
    return hashes, logged(output)
