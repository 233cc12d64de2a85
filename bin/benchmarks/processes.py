"""Work that needs a process of its own, for a peak of memory or a start that nothing before it has changed."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from visionloop.engine.system.memory import peak_bytes


def in_new_process(start, function, *arguments):
    """function(*arguments) as a process of its own answers. start: a method of multiprocessing."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(start)) as process:
        return process.submit(function, *arguments).result()


def peak_resident():
    """The most memory of this process so far that was in RAM, MiB."""
    return peak_bytes() / 2**20
