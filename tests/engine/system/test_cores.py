"""Default workers and threads of a training process."""

import pytest

from visionloop.engine.system import cores


@pytest.fixture(params=[1, 2, 3, 8, 64])
def num_cores(request, monkeypatch):
    monkeypatch.setattr(cores, "available_cores", lambda: request.param)
    return request.param


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_on_a_cpu_compute_on_all_cores_between_them_and_no_more(
    num_cores, processes, monkeypatch
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    workers, threads = cores.share_cores("cpu")
    assert threads == max(1, num_cores // processes)
    assert 0 <= workers <= min(2, threads - 1)


def test_beside_a_gpu_workers_and_threads_have_cores_of_their_own(num_cores, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    workers, threads = cores.share_cores("cuda")
    assert workers + threads == num_cores and threads >= 1
