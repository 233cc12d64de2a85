"""One check of `selftest` in a process of its own: a crash, a hang or a broken device ends that check and no other."""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from contextlib import suppress

OK, FAILED, NOT_POSSIBLE, NOT_RUN = "ok", "failed", "not possible here", "not run: out of time"


class CheckProcess:
    """A new interpreter that imports what checks need, and then waits for the one check to do. log: file for what it prints."""

    def __init__(self, log):
        self.log = log
        self._connection, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(other, str(log))
        )
        self._process.start()
        other.close()

    def run(self, kind, trial_arguments, seconds):
        """{"state", "reason", "seconds", "figures", "traceback"} of a check. kind: None describes the device; seconds: it may take."""
        began = time.monotonic()
        try:
            self._connection.send((kind, trial_arguments))
            if self._connection.poll(seconds):
                result = self._connection.recv()
            else:
                result = {
                    "state": FAILED,
                    "reason": f"has not ended after {seconds:.0f} s",
                    "figures": {},
                    "traceback": self._tail(),
                }
                self._end(signal.SIGTERM, 20)  # a launcher ends its own
        except (EOFError, OSError):  # nobody is there any more
            self._process.join(5)
            why = f"its process ended with {self._process.exitcode}"
            result = {"state": FAILED, "reason": why, "figures": {}, "traceback": self._tail()}
        self.close()
        return result | {"seconds": round(time.monotonic() - began, 1)}

    def close(self):
        """End the process, which is asked first and then made to, and those that it started."""
        self._connection.close()
        self._process.join(10)
        self._end(signal.SIGKILL, 0)
        self._process.join()

    def _end(self, number, patience):
        """Send a signal to the whole group, and wait so many seconds for it to be gone."""
        deadline = time.monotonic() + patience
        if self._process.is_alive():  # it may not have made its group yet
            os.kill(self._process.pid, number)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
            while time.monotonic() < deadline:
                self._process.join(0.2)
                os.killpg(self._process.pid, 0)

    def _tail(self):
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


def _serve(connection, log):
    os.setsid()  # a group of its own, to be ended as one
    sys.stdout = sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115 - to the end of the process
    for stream in (1, 2):
        os.dup2(sys.stdout.fileno(), stream)
    functions = load_functions()
    with suppress(EOFError):  # the other side is gone, or has what it wanted
        kind, trial_arguments = connection.recv()
        connection.send(run_check(functions[kind], trial_arguments))
        connection.recv()


def load_functions():
    """{kind of check: function(Trial)}; None: what is known of the device."""
    from visionloop.bin.benchmarks import selftest_models, selftest_numbers, selftest_runs

    return {
        None: describe_device,
        "health": selftest_runs.health,
        "precision": selftest_numbers.precision,
        "bad-step": selftest_numbers.bad_step,
        "host-sync": selftest_numbers.host_sync,
        "same-bytes": selftest_runs.same_bytes,
        "ranks": selftest_models.ranks,
        "torchrun": selftest_runs.torchrun,
        "torchrun-all": selftest_runs.torchrun_all,
        "async-save": selftest_runs.async_save,
        "recompute": selftest_numbers.recompute,
        "pinned": selftest_numbers.pinned,
        "tf32": selftest_numbers.tf32,
        "named-model": selftest_models.named_model,
        "compile": selftest_runs.compiled,
        "mps": selftest_runs.mps,
    }


def run_check(function, trial_arguments):
    """What a check found, json-able. An error of any kind is the check's answer, not ours."""
    import torch

    from visionloop.bin.benchmarks.selftest_trial import NotPossible, Trial

    torch.set_num_threads(1)
    try:
        return {
            "state": OK,
            "reason": "",
            "figures": function(Trial(**trial_arguments)),
            "traceback": None,
        }
    except NotPossible as error:
        return {"state": NOT_POSSIBLE, "reason": str(error), "figures": {}, "traceback": None}
    except BaseException as error:
        first_line = (str(error).splitlines() or [""])[0]
        reason = (
            first_line
            if isinstance(error, AssertionError) and first_line
            else f"{type(error).__name__}: {first_line}"
        )
        return {
            "state": FAILED,
            "reason": reason,
            "figures": {},
            "traceback": traceback.format_exc(),
        }


def describe_device(trial):
    """{"device", "device_count", "device_name", ..} of what `--device` means here."""
    import torch

    from visionloop.engine.distributed import pick_device

    device = pick_device(trial.device)
    found = {
        "device": device.type,
        "device_count": torch.cuda.device_count() if device.type == "cuda" else 1,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device_name": properties.name,
            "device_memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        }
    return found
