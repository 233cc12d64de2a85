"""Freed memory stays with the process, and is given back on request."""

import platform
import subprocess
import sys

import pytest

KEEPS_ANY_SIZE = platform.libc_ver()[0] == "glibc" and tuple(
    map(int, platform.libc_ver()[1].split("."))
) >= (2, 35)
TEN_TIMES = """
import resource, sys
import torch
from visionloop.engine.system.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    # 40 MiB each, all freed at once: above 32 MiB glibc always asks the system, below it depends
    # on what lies beside
    return [torch.ones(10 << 20) for _ in range(2)]
for _ in range(20):  # the heap takes its shape: in up to six steps seen
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


GIVEN_BACK = """
import sys
import torch
from visionloop.engine.system.memory import (
    give_back_freed_memory,
    keep_freed_memory,
    resident_bytes,
)

keep_freed_memory()
tensors = [torch.ones(1 << 20) for _ in range(20)]
del tensors
before = resident_bytes()
give_back_freed_memory()
print((before - resident_bytes()) / 2**20)
"""


def page_faults(how):
    return int(
        subprocess.run(
            [sys.executable, "-c", TEN_TIMES, how], capture_output=True, text=True, check=True
        ).stdout
    )


@pytest.mark.skipif(not KEEPS_ANY_SIZE, reason="glibc from 2.35 on")
def test_steps_after_the_first_few_touch_no_new_pages():
    assert page_faults("keep") < page_faults("as it is") / 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_what_is_kept_can_be_given_back():
    given_back = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True
    ).stdout
    assert float(given_back) > 75  # of 80 MiB


LIMITED = """
import resource
import torch
from visionloop.engine.system.memory import is_out_of_memory, keep_freed_memory, virtual_bytes

resource.setrlimit(resource.RLIMIT_AS, (virtual_bytes() + (200 << 20), resource.RLIM_INFINITY))
keep_freed_memory()
tensors = []
try:
    while True:
        tensors.append(torch.ones(1 << 20))
except RuntimeError as error:
    assert is_out_of_memory(error), error
    pins = tensors[::2]  # the others lie between them
    del tensors
print((resource.getrlimit(resource.RLIMIT_AS)[0] - virtual_bytes()) / 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_where_addresses_are_limited_freed_ones_are_given_back():
    free = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True
    ).stdout
    assert float(free) > 80  # of 200 MiB
