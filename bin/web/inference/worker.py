"""A process that predicts images with one model: requests on stdin, replies on stdout.

    python -P -m visionloop.bin.web.inference.worker TASK MODEL MAX_PIXELS

Ends when stdin ends, so that it never outlives its server. An image that is made to harm a decoder
harms this process alone. With HF_HUB_OFFLINE=1, which the server sets, nothing is downloaded.
"""

import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TextIO

from PIL import Image

from visionloop.bin.model_zoo.listing import zoos_of
from visionloop.bin.web.inference.loaded_model import LoadedModel
from visionloop.bin.web.inference.messages import Failure, PredictionRequest, Reply
from visionloop.engine.distributed import pick_device
from visionloop.engine.errors import UserError
from visionloop.engine.system.memory import is_out_of_memory

# smallest score of a box or segment: the slider of the page begins there, and a model that has
# trained for a short time reaches no more
SETTINGS = {
    "detection": {"score": 0.01},
    "instance_segmentation": {"score": 0.05},
    "panoptic_segmentation": {"score": 0.5},
}
DEVICE = "cpu"  # the memory of a GPU belongs to the trainings, which would end without it


def main() -> None:
    """Load the model, then reply to requests until stdin ends."""
    task, model, max_pixels = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with suppress(OSError):  # where memory runs out, this process ends, and no training
        Path("/proc/self/oom_score_adj").write_text("1000")
    replies = take_stdout()
    requests: SimpleQueue[str] = SimpleQueue()
    Thread(target=read_requests, args=(requests,), daemon=True).start()
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        loaded = load(task, model, max_pixels)
    except Exception as error:
        send(replies, Reply(failure=failure_of(error)))
        return
    send(replies, Reply(ready=True))
    while True:
        request = PredictionRequest.model_validate_json(requests.get())
        try:
            reply = Reply(prediction=loaded.predict(request))
        except Exception as error:
            reply = Reply(failure=failure_of(error))
        send(replies, reply)


def load(task_name: str, model: str, max_pixels: int) -> LoadedModel:
    """Load a folder, or a model of the zoo that is in the hub's cache.

    Raises UserError for a model that is not here, or not of this task.
    """
    task_class = import_module(f"visionloop.bin.{task_name}").load_task_class()
    folder = model
    if not os.path.isabs(model):
        folder = str(released_folder(task_name, model))
    device = pick_device(DEVICE)
    task, module = task_class.load_trained(folder, **SETTINGS.get(task_name, {}))
    return LoadedModel(task, module.to(device), device, max_pixels)


def released_folder(task_name: str, name: str) -> Path:
    """Return the folder of a released model in the hub's cache.

    Raises UserError for one that has to be downloaded first, and for an architecture without
    weights.
    """
    (zoo,) = zoos_of(task_name)
    source = zoo.model_names.find(name, from_scratch=False)
    if source.folder is None:
        raise UserError(
            f"model {name}: an architecture without trained weights; train it first", field="model"
        )
    return source.folder


def take_stdout() -> TextIO:
    """Return stdout for replies; whatever else is printed goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def read_requests(requests: SimpleQueue[str]) -> None:
    """Pass on the lines of stdin; end the process with it, in the middle of a prediction too."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def send(replies: TextIO, reply: Reply) -> None:
    """Write one line."""
    replies.write(f"{reply.model_dump_json(exclude_none=True)}\n")
    replies.flush()


def failure_of(error: Exception) -> Failure:
    """Return an error as the reply; a defect is printed with its traceback, for the log."""
    if is_out_of_memory(error):
        return Failure(
            status=503,
            code="no_memory",
            message="image: not enough memory for this prediction",
            field="image",
            hint="take a smaller image, or wait until a training has ended",
        )
    if isinstance(error, UserError):
        return Failure(
            status=422, code=error.code, message=str(error), field=error.field, hint=error.hint
        )
    traceback.print_exception(error)
    message = f"{type(error).__name__} during the prediction; the log has the traceback"
    return Failure(status=500, code="defect", message=message)


if __name__ == "__main__":
    main()
