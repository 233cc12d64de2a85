"""Work that needs a process of its own, for a peak of memory or a start that nothing before it has changed."""

import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor


def in_new_process(start, function, *arguments):
    """function(*arguments) as a process of its own answers. start: a method of multiprocessing."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(start)) as process:
        return process.submit(function, *arguments).result()


def peak_resident():
    """The most memory of this process so far that was in RAM, MiB."""
    unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
