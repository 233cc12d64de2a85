"""A function of the user that augments decoded samples: `augment(sample, generator) -> sample`.

It is loaded from the text of its file, which is read once: all processes of a run, workers too,
have the same function, whatever happens to the file later.
"""

import hashlib
import importlib.util
import inspect
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

# of a sample, given to the function; what it returns is checked by samples.py
Parts: TypeAlias = dict[str, torch.Tensor]
Function: TypeAlias = Callable[[Parts, torch.Generator], object]

EXPECTED = "expected FILE.py:NAME, as in augment.py:augment"
SIGNATURE = "expected a function of (sample, generator)"


class AugmentError(OSError):
    """A function that cannot be loaded, or a sample that it could not augment.

    An OSError, as every sample that cannot be made; `code` tells that skipping it is no help.

    Attributes:
        path: the sample, or the option where there is none.
        why: the reason, one line.
        details: the traceback of the function, "" for a wrong result.
    """

    code = "bad_augment"

    def __init__(self, path: str, why: str, details: str = "") -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why, self.details = path, why, details

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.path, self.why, self.details)


class UserFunction:
    """The function of `--augment FILE.py:NAME`.

    Attributes:
        spec: FILE.py:NAME as it was given.
        text: content of the file.
        digests: {part: SHA-256} of the last result, while `records` is set.
    """

    def __init__(self, spec: str) -> None:
        """Read the file. Raises AugmentError for one that cannot be read."""
        self.spec, self.records = spec, False
        self.file, _, self.name = spec.rpartition(":")
        if Path(self.file).suffix != ".py" or not self.name.isidentifier():
            raise self.error(EXPECTED)
        try:
            self.text = Path(self.file).read_text(encoding="utf-8")
        except FileNotFoundError:
            where = "" if os.path.isabs(self.file) else f" below the current folder {os.getcwd()}"
            hint = "; a run keeps a copy, augment.py in its folder"
            raise self.error(f"no such file{where}{hint}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(f"cannot be read ({error})") from None
        self.digests: dict[str, str] = {}
        self._function: Function | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_function": None}  # a worker loads the text itself

    def fingerprint(self) -> str:
        """Return what decides about the results: the name, and the SHA-256 of the text."""
        return f"{self.name} sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"

    def error(self, why: str, sample: str | None = None, details: str = "") -> AugmentError:
        """Return an error that names the option and, if there is one, the sample."""
        option = f"--augment {self.spec}"
        if sample is None:
            return AugmentError(option, why, details)
        return AugmentError(sample, f"{option}: {why}", details)

    def forget(self) -> None:
        """Load the function anew at its next call, with nothing kept from earlier ones."""
        self._function = None

    def __call__(self, parts: Parts, sample: str) -> Mapping[str, object]:
        """Call the function.

        Its generator, and those of torch, numpy and random, are seeded from the seed of torch's
        default generator, which the engine derives from (seed, epoch, index). Afterwards they are
        as they were: our own augmentation is the same with and without the function.

        Args:
            parts: of the sample; the function may change them.
            sample: name of the sample, for messages.

        Returns:
            The result, with the same keys.

        Raises:
            AugmentError: the function fails, or its result is no dict with these keys.
        """
        function = self._function = self._function or self._load()
        seed = derived_seed(torch.initial_seed())
        generator = torch.Generator().manual_seed(seed)
        keys = sorted(parts)
        try:
            with seeded_generators(derived_seed(seed)):
                result = function(parts, generator)
        except Exception as error:
            raise self.error(first_line(error), sample, self._traceback(error)) from error
        if not isinstance(result, Mapping):
            found = type(result).__name__
            why = f"returned {found}, expected a dict with the keys {', '.join(keys)}"
            raise self.error(why, sample)
        if sorted(map(str, result)) != keys:
            found = ", ".join(sorted(map(str, result))) or "none"
            why = f"returned a dict with the keys {found}, expected {', '.join(keys)}"
            raise self.error(why, sample)
        return result

    def record(self, parts: Mapping[str, torch.Tensor]) -> None:
        """Set `digests` to those of a checked result, while `records` is set."""
        if self.records:
            self.digests = {name: digest_of(tensor) for name, tensor in parts.items()}

    def _load(self) -> Function:
        """Run the text as a module and return the function. Raises AugmentError."""
        module_name = f"visionloop_augment_{hashlib.sha256(self.text.encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(module_name, os.path.abspath(self.file))
        assert spec is not None, "a name that ends in .py"
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses of the file look for themselves there
        try:
            # what the file draws while it is loaded is the same in every process
            with seeded_generators(derived_seed(0)):
                exec(compile(self.text, self.file, "exec"), module.__dict__)
        except SyntaxError as error:
            raise self.error(f"line {error.lineno}: {error.msg}") from None
        except Exception as error:
            raise self.error(first_line(error), details=self._traceback(error)) from error
        function: Function | None = getattr(module, self.name, None)
        if function is None:
            raise self.error(f"the file has no {self.name}; {SIGNATURE}")
        try:
            inspect.signature(function).bind({}, torch.Generator())
        except (TypeError, ValueError) as error:
            raise self.error(f"{error}; {SIGNATURE}") from None
        return function

    def _traceback(self, error: Exception) -> str:
        """Return the traceback of an error from the first line of the user's file on."""
        whole = traceback.TracebackException.from_exception(error)
        frames = list(whole.stack)
        own = [i for i, frame in enumerate(frames) if frame.filename == self.file]
        del whole.stack[: own[0] if own else 0]
        return "".join(whole.format()).rstrip()


def first_line(error: Exception) -> str:
    """Return type and message of an error in one line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def derived_seed(seed: int) -> int:
    """Hash a seed to 32 bits, which every generator takes."""
    return int.from_bytes(hashlib.blake2b(b"augment %d" % seed, digest_size=4).digest(), "little")


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed the CPU generators of torch, numpy and random in the block and restore them after it."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def digest_of(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of shape, dtype and bytes of a tensor."""
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
