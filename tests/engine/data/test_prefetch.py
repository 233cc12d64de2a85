"""Prefetching never blocks the loop, reports killed workers, and leaves no process behind."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time

import pytest
import torch
from torch.utils.data import DataLoader, _utils
from toy_task import ToyImages
from toy_training_data import kill_workers_that_are_left, never_stop, training_data

from visionloop.engine.batch import Batch
from visionloop.engine.data import prefetch
from visionloop.engine.data.loader import SeededDataset
from visionloop.engine.data.prefetch import Prefetcher
from visionloop.engine.data.sampler import EpochSampler


@pytest.fixture(autouse=True)
def no_worker_is_left():
    with kill_workers_that_are_left():
        yield


def test_the_thread_that_pins_memory_works_with_the_gpu_of_its_process(monkeypatch):
    devices, pinned_by = {}, []

    class HostBatch(Batch):
        def pin_memory(self):
            pinned_by.append(threading.get_ident())
            return self

    monkeypatch.setattr(
        torch.cuda, "set_device", lambda device: devices.update({threading.get_ident(): device})
    )
    batches = [(HostBatch({"sample_ids": torch.arange(2)}), ()) for _ in range(3)]
    loader = DataLoader(batches, batch_size=None)
    prefetcher = Prefetcher(loader, ahead=2, device=torch.device("cuda", 1))
    assert len(prefetcher.fetch(3, never_stop)) == 3
    prefetcher.close()
    assert len(pinned_by) == 3 and devices == {pinned_by[0]: torch.device("cuda", 1)}
    assert threading.get_ident() not in devices


# errors --------------------


class Deadly(ToyImages):
    """The worker that reads sample 4 is killed, as by a system that is short of memory."""

    def __getitem__(self, index):
        if index == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_killed_worker_is_reported_with_the_sample_that_it_was_reading():
    data = training_data(Deadly(21, split="train"), workers=2)
    while data.fetch(never_stop) is not None:
        pass
    data.close()
    assert data.error.name == "train/4.png" and data.error.code == "lost_worker"
    assert "killed by signal 9" in str(data.error.as_user_error())


class LosesItsWorker:
    """A loader whose connection breaks while the process at its other end is still being killed."""

    num_workers = 1

    def __init__(self):
        self.dataset = SeededDataset(ToyImages(5, split="train"), EpochSampler(5, 4, 0), workers=1)
        self.dataset._index_in_progress[0] = 4
        self._workers = [multiprocessing.get_context("fork").Process(target=self.die_soon)]

    def __iter__(self):
        self._workers[0].start()
        return self

    def __next__(self):
        raise EOFError

    @staticmethod
    def die_soon():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_whose_connection_breaks_before_it_has_ended_is_reported_as_killed():
    loses_its_worker = prefetch.Prefetcher(LosesItsWorker(), ahead=1)
    [(error, _)] = loses_its_worker.fetch(2, never_stop)  # and the second is not waited for
    loses_its_worker.close()
    assert error.name == "train/4.png" and error.code == "lost_worker"


class Broken(ToyImages):
    def __getitem__(self, index):
        raise KeyError("a defect in the dataset")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_defect_of_the_dataset_is_raised_in_the_main_thread(workers):
    data = training_data(Broken(21, split="train"), workers=workers, skip_unreadable=True)
    with pytest.raises(KeyError, match="a defect in the dataset"):
        data.fetch(never_stop)
    data.close()


# stopping --------------------


class Held(ToyImages):
    """Samples that are not there before `gate` opens; with workers, only time opens it."""

    def __init__(self, seconds):
        super().__init__(21, split="train")
        self.gate, self.seconds = threading.Event(), seconds

    def __reduce__(self):
        return Held, (self.seconds,)

    def __getitem__(self, index):
        self.gate.wait(self.seconds)
        return super().__getitem__(index)


@pytest.mark.parametrize(("workers", "seconds"), [(0, 60), (1, 10)])
def test_a_stop_is_seen_at_once_while_a_sample_is_slow(workers, seconds):
    dataset, before = Held(seconds), set(threading.enumerate())
    data = training_data(dataset, workers=workers)
    began = time.monotonic()
    assert data.fetch(lambda: True) is None
    assert time.monotonic() - began < 3  # in 0.2 s where nothing else runs
    assert data.error is None
    data.close()
    assert time.monotonic() - began < 6, "close does not wait for the sample"
    # a thread of this process that continues to build samples would draw from the next test's
    # generators
    dataset.gate.set()
    for thread in set(threading.enumerate()) - before:
        if thread.name == "prefetcher" and workers == 0:
            thread.join(timeout=5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_long_wait_for_data_is_reported_with_the_samples_in_progress(
    workers, monkeypatch, caplog
):
    monkeypatch.setattr(prefetch, "SLOW_SECONDS", 0.3)
    began, dataset = time.monotonic(), Held(1.2)
    data = training_data(dataset, workers=workers, micro_batch=8)
    assert data.fetch(lambda: time.monotonic() - began > 1.0) is None
    dataset.gate.set()
    data.close()
    warnings = [
        record.getMessage()
        for record in caplog.records
        if "waiting for data" in record.getMessage()
    ]
    assert len(warnings) == 2, "once, and again when the wait has doubled"
    assert all(
        (data.dataset.name(data.sampler.sample_ids(0)[0]) if workers else "in this process") in line
        for line in warnings
    )


@pytest.mark.parametrize(
    "kind",
    [
        "in mid-run",
        "at the end",
        "after a defect",
        "after an unreadable sample",
        "while a sample is slow",
    ],
)
def test_the_workers_are_gone_after_close(kind):
    """They ignore SIGTERM: one that is left keeps the interpreter from ending."""
    before = set(multiprocessing.active_children())
    train_set = {
        "after a defect": Broken(21, split="train"),
        "after an unreadable sample": ToyImages(21, split="train", unreadable={4}),
        "while a sample is slow": Held(30),
    }.get(kind, ToyImages(21, split="train"))
    data = training_data(train_set, workers=2, steps=6)
    with contextlib.suppress(KeyError):
        for _ in range(6 if kind != "in mid-run" else 1):
            data.fetch(lambda: kind == "while a sample is slow")
    began = time.monotonic()
    data.close()
    assert set(multiprocessing.active_children()) - before == set()
    assert time.monotonic() - began < 6


def test_the_private_parts_of_torch_that_close_relies_on_exist():
    """A canary for a new torch: without them workers outlive the run, or `close` hangs."""
    assert callable(_utils.signal_handling._remove_worker_pids)
    data = training_data(workers=1)
    data.fetch(never_stop)
    iterator = data._prefetcher._iterator
    assert iterator._worker_pids_set is True and iterator._shutdown is False
    assert [worker.is_alive() for worker in iterator._workers] == [True]
    assert all(hasattr(queue, "cancel_join_thread") for queue in iterator._index_queues)
    data.close()


def test_close_takes_no_lock_that_a_killed_worker_may_have_held():
    data = training_data(workers=1)
    data.fetch(never_stop)
    # as by a process that asks whether it is to end, in the moment of its end
    data._prefetcher._iterator._workers_done_event._cond.acquire()
    closing = threading.Thread(target=data.close, daemon=True)
    closing.start()
    closing.join(timeout=20)
    assert not closing.is_alive()


def test_the_fetching_thread_is_gone_after_close():
    before = set(threading.enumerate())
    data = training_data()
    data.fetch(never_stop)
    data.close()
    assert set(threading.enumerate()) - before == set()
