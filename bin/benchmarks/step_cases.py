"""A training step in several cases that take turns in one process: its parts, its arithmetic, its memory."""

import statistics
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tqdm
from torch._dynamo.utils import counters

from visionloop.bin.benchmarks.matrix_products import MatrixProduct, count_flops
from visionloop.bin.benchmarks.ratios import ratio_with_interval
from visionloop.bin.benchmarks.same_step import SameStep
from visionloop.bin.benchmarks.step_parts import take_in_parts
from visionloop.engine.precision import DTYPES, Precision, build_precision

WARM_STEPS = 3  # the first one compiles or allocates, a second may compile again


@dataclass
class Case:
    """One way to take the step, and what was measured of it."""

    step: SameStep
    recomputed: str  # a case of `step`
    precision: Precision
    facts: dict  # of its row
    parts: list = field(default_factory=list)  # [{part: seconds}], one a turn, like the two below
    seconds: list = field(default_factory=list)
    shares: list = field(default_factory=list)  # of the rate of matrix products

    def take(self):
        """Seconds of one step."""
        self.step.run.precision = self.precision
        return self.step.take(self.recomputed)

    def measure(self, product):
        """One turn: a step alone, one in parts, and a matrix product of the same precision."""
        self.seconds.append(self.take())
        self.parts.append(take_in_parts(self.step, self.recomputed))
        self.shares.append(
            1e9 * self.facts["gflop"] / self.seconds[-1] / product.flops_per_second()
        )

    def row(self, first, batch_size):
        """{figure: value}. first: the Case that times are compared with."""
        medians = {
            f"{part}_ms": milliseconds(turn[part] for turn in self.parts) for part in self.parts[0]
        }
        ratio, (low, high) = ratio_with_interval(self.seconds, first.seconds)
        return {
            **self.facts,
            **medians,
            "step_ms": milliseconds(self.seconds),
            "times_as_long": round(ratio, 3),
            "times_as_long_95": [round(low, 3), round(high, 3)],
            "samples_per_second": round(batch_size / statistics.median(self.seconds), 1),
            "share_percent": round(100 * statistics.median(self.shares), 1),
        }


def measure_cases(task_name, flags, names, repeats):
    """({figure of all cases: value}, [{figure: value} of each case]).

    names: [(precision, whether activations are recomputed, whether compiled)]. flags: settings of
    the run without these.
    """
    flags = flags | {"precision": names[0][0]}
    with tempfile.TemporaryDirectory() as scratch:
        plain = SameStep(task_name, flags, Path(scratch) / "run")
        compiled = {
            again: SameStep(
                task_name,
                flags | {"compile": True, "grad_checkpointing": again},
                Path(scratch) / f"compiled_{again}",
            )
            for again in sorted({again for _, again, is_compiled in names if is_compiled})
        }
    blocks = {
        again: list(plain.cases)[-again] for again in (False, True)
    }  # recomputed: none, or all
    gflop = {
        again: round(count_flops(partial(plain.take, case)) / 1e9, 3)
        for again, case in blocks.items()
    }
    cases = []
    for name, again, is_compiled in tqdm.tqdm(names, desc="first steps", disable=None):
        precision = build_precision(name, plain.device, tf32=plain.run.config.tf32)
        words = [name, "recomputed" if again else "", "compiled" if is_compiled else ""]
        facts = {
            "case": " ".join(filter(None, words)),
            "precision": name,
            "grad_checkpointing": again,
            "compiled": is_compiled,
        }
        facts |= {"recomputed": blocks[again], "gflop": gflop[again]}
        # a compiled run recomputes by itself
        cases.append(
            Case(
                *((compiled[again], "none") if is_compiled else (plain, blocks[again])),
                precision,
                facts,
            )
        )
        facts |= take_first_steps(cases[-1])
    products = {
        precision: MatrixProduct(DTYPES[precision], plain.device, plain.clock)
        for precision, _, _ in names
    }
    for _ in tqdm.trange(repeats, desc="turns", disable=None):
        for case in cases:
            case.measure(products[case.precision.name])
    rates = {
        f"matmul_{name}_gflops_per_second": product.median_gflops()
        for name, product in products.items()
    }
    shared = {"device": plain.device.type, "held_mib": round(plain.held_mib(), 1)} | rates
    return shared, [case.row(cases[0], flags["batch_size"]) for case in cases]


def take_first_steps(case):
    """{figure: value} of the steps before those that are timed: what they compiled, and on CUDA the memory of one more."""
    counters.clear()
    first, *_ = [case.take() for _ in range(WARM_STEPS)]
    facts = {"peak_mib": None}
    if case.facts["compiled"]:
        reasons = {
            reason.splitlines()[0]: times for reason, times in counters["graph_break"].items()
        }
        facts |= {"compile_s": round(first, 1), "graphs": counters["stats"]["unique_graphs"]}
        facts |= {"graph_breaks": sum(reasons.values()), "break_reasons": reasons}
    if case.step.device.type == "cuda":
        most, before = case.step.allocated_mib(case.recomputed)
        facts["peak_mib"] = round(most - before, 1)
    return facts


def milliseconds(seconds):
    return round(1000 * statistics.median(seconds), 2)
