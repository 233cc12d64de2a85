"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

TEN_TIMES = """
import resource, sys
import torch
from visionloop.engine.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    return [torch.ones(1 << 20) for _ in range(8)]  # 4 MiB each, all freed at once
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


GIVEN_BACK = """
import sys
import torch
from visionloop.bin.benchmarks.pipelines.proportional_memory import proportional_mib
from visionloop.engine.allocator import give_back_freed_memory, keep_freed_memory

keep_freed_memory()
tensors = [torch.ones(1 << 20) for _ in range(20)]
del tensors
before = proportional_mib()
give_back_freed_memory()
print(before - proportional_mib())
"""


def page_faults(how):
    return int(subprocess.run([sys.executable, "-c", TEN_TIMES, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_steps_after_the_first_touch_no_new_pages():
    assert page_faults("keep") < page_faults("as it is") / 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_what_is_kept_can_be_given_back():
    given_back = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True).stdout
    assert float(given_back) > 75  # of 80 MiB
