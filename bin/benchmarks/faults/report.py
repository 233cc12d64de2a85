"""What our pages say of the library, measured again: each claim beside the sentences that make it."""

import textwrap
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata

import click
from tqdm import tqdm

from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.bin.benchmarks.tables import print_table

NOTHING = "nothing"
ENDS = {
    False: "is not so in transformers {}: the sentence must go",
    None: "cannot be measured in transformers {}: look at the sentence",
}
ANSWERS = {True: "yes", False: "no", None: "not measured"}


@dataclass(frozen=True)
class Claim:
    """One claim of ours about the library.

    said: ((file, words of the sentence that makes it), ...); measure: () -> (whether it holds, {figure: value}), with the installed
    library on networks of a few thousand weights, under a fixed seed.
    """

    says: str
    said: tuple[tuple[str, str], ...]
    measure: Callable


def claims_of(task_name):
    """The claims of one task's pages and code."""
    from visionloop.bin.benchmarks.faults import classification, detection, segmentation, super_resolution

    modules = (classification, detection, segmentation, super_resolution)
    return {module.TASK: module.CLAIMS for module in modules}[task_name]


def report_claims(task_names, json_file):
    """Measure and print the claims of these tasks, and in the end which sentences are no longer true."""
    version = metadata.version("transformers")
    claims = [(task_name, claim) for task_name in task_names for claim in claims_of(task_name)]
    answers = [measured(claim) for _, claim in tqdm(claims, desc="claims", disable=None, leave=False)]
    environment = describe_environment({})
    lines, ends = [], []
    for (task_name, claim), (holds, figures) in zip(claims, answers, strict=True):
        text = ", ".join(f"{name} {shown(value)}" for name, value in figures.items())
        lines.append({"claim": f"{task_name}: {claim.says}", f"holds in transformers {version}": ANSWERS[holds], "measured": text})
        said_in = "; ".join(f"{file}: {words}" for file, words in claim.said)
        row = {"claim": claim.says, "holds": holds, "measured": text, "said_in": said_in}
        append_line(json_file, benchmark="faults", task=task_name, **row, **environment)
        ends += [f'{file}: "{words}" {ENDS[holds].format(version)}' for file, words in claim.said if holds is not True]
    print_table(lines)
    for line in dict.fromkeys(ends):  # one sentence may make two claims
        click.echo(line)
    if not ends:
        click.echo(f"transformers {version}: all {len(claims)} claims hold, no sentence has to go")


def measured(claim):
    """(whether a claim holds, {figure: value}); (None, why) where the library has changed so much that it cannot be measured."""
    import torch

    from visionloop.tasks.library import quiet_library

    with torch.random.fork_rng(devices=[]), quiet_library():
        torch.manual_seed(0)
        try:
            return claim.measure()
        except Exception as error:  # one claim about parts that are gone must not hide what is so with the others
            return None, {"stopped by": first_line(error)}


def first_line(error):
    """The kind of an error and how the first line of what it says begins."""
    said = str(error).strip().splitlines() or [""]
    return textwrap.shorten(f"{type(error).__name__}: {said[0]}", 80, placeholder=" ...")


def failure_of(call, kind):
    """What `call()` fails with, an error of `kind`; NOTHING where it goes through. Any other error is raised."""
    try:
        call()
    except kind as error:
        return first_line(error)
    return NOTHING


def shown(value):
    """A figure with four digits that count; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def biggest(tensor):
    """The largest absolute value of a tensor."""
    return tensor.abs().max().item()


def named_version(module_name, class_name):
    """Whether our network is still the library's, in the release that the pages name: their other claims were read in its code."""
    import importlib

    import transformers

    ours, theirs = getattr(importlib.import_module(module_name), class_name), getattr(transformers, class_name)
    version = metadata.version("transformers")
    return issubclass(ours, theirs) and version.startswith("5.23."), {"version": version, "class": theirs.__name__}


def refuses_recomputing(network):
    """Whether a network of the library has no way of its own to recompute activations."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the switch has a newer name too
        failed = failure_of(network.gradient_checkpointing_enable, ValueError)
    return failed != NOTHING, {"its own switch": failed}


@contextmanager
def larger_second_rank():
    """As if a second process held twice as many targets: sums over ranks are three times this one's. Yields [how many were asked for]."""
    from unittest.mock import patch

    asked = []

    def all_reduce(tensor, *_, **__):
        asked.append(tensor)
        tensor.mul_(3)

    told = {"is_available": lambda: True, "is_initialized": lambda: True, "get_world_size": lambda *_: 2, "all_reduce": all_reduce}
    with patch.multiple("torch.distributed", **told):
        yield asked
