"""Tensors of a checkpoint by name, whole in one file or as the rows of each shard.

KIND.safetensors holds whole tensors. Of a sharded run, KIND-00001-of-00004.safetensors to
KIND-00004-of-00004.safetensors hold the rows of each of four shards under the same names. The
header of each says which rows these are, so any number of ranks can read them. What is not sharded
is in the first file alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

ROWS = "rows"  # in the header of a shard: JSON {name: [first row, whole shape]}
SHARD_FILE = re.compile(r"(?P<kind>[a-z]+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a tensor.

    Attributes:
        tensor: the rows.
        first: number of the first one in the whole tensor.
        shape: of the whole tensor.
    """

    tensor: torch.Tensor
    first: int
    shape: tuple[int, ...]


def shard_file(kind: str, index: int, count: int) -> str:
    """Return the file name of a shard. index: 0..count - 1."""
    return f"{kind}-{index + 1:05d}-of-{count:05d}.safetensors"


def is_sharded(folder: Path, kind: str = "optimizer") -> bool:
    """Return True for a checkpoint whose tensors of this kind are divided into shards."""
    return any(folder.glob(f"{kind}-*-of-*.safetensors"))


def save_rows(path: Path, rows: Mapping[str, Rows]) -> None:
    """Write the file of a shard."""
    header = {name: [part.first, list(part.shape)] for name, part in rows.items()}
    tensors = {name: part.tensor.contiguous() for name, part in rows.items()}
    save_file(tensors, path, metadata={ROWS: json.dumps(header, sort_keys=True)})


class StoredTensors(Mapping[str, torch.Tensor]):
    """The tensors of one kind in a checkpoint: {name: whole tensor}, read when asked for.

    Use as a context: files stay open and mapped inside of it.

    Args:
        folder: of the checkpoint.
        kind: the name of the files, e.g. "optimizer".

    Raises:
        ValueError: a file is missing or cannot be understood, or rows are missing.
        OSError: a file cannot be read.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._paths = shard_paths(folder, kind)
        self._stack = ExitStack()
        # {name: parts in the order of their rows}
        self._parts: dict[str, list[_Part]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def __enter__(self) -> Self:
        try:
            for path in self._paths:
                self._open(path)
        except (SafetensorError, KeyError, TypeError) as error:
            self._stack.close()
            raise ValueError(f"{path.name}: {' '.join(str(error).split())}") from None
        for name, parts in self._parts.items():
            parts.sort(key=lambda part: part.first)
            rows = 0
            for part in parts:
                if part.first != rows:
                    raise ValueError(f"{name}: a part begins at row {part.first}, expected {rows}")
                rows += part.rows
            if rows != row_count(self.shapes[name]):
                raise ValueError(f"{name}: {rows} rows, expected {row_count(self.shapes[name])}")
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def _open(self, path: Path) -> None:
        file = self._stack.enter_context(safe_open(path, framework="pt"))
        header = json.loads((file.metadata() or {}).get(ROWS, "{}"))
        for name in file.keys():  # noqa: SIM118  not a dict
            stored = tuple(file.get_slice(name).get_shape())
            first, shape = header.get(name, (0, stored))
            self._parts.setdefault(name, []).append(_Part(file, first, row_count(stored)))
            self.shapes[name] = tuple(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.rows(name, 0, row_count(self.shapes[name]))

    def rows(self, name: str, first: int, stop: int) -> torch.Tensor:
        """Read the rows first..stop - 1 of a tensor; no others are read."""
        found = []
        for part in self._parts[name]:
            start, end = max(first, part.first), min(stop, part.first + part.rows)
            if not self.shapes[name]:
                return part.file.get_tensor(name)
            if start < end:
                found.append(part.file.get_slice(name)[start - part.first : end - part.first])
        if not found:
            some = self._parts[name][0].file.get_slice(name)[:0]
            return some.reshape(0, *self.shapes[name][1:])
        return found[0] if len(found) == 1 else torch.cat(found)


@dataclass(frozen=True)
class _Part:
    """Rows of a tensor in one file. file: an open safetensors file."""

    file: safe_open
    first: int
    rows: int


def row_count(shape: tuple[int, ...]) -> int:
    """Return the rows of a tensor of this shape; a scalar has one."""
    return shape[0] if shape else 1


def shard_paths(folder: Path, kind: str) -> list[Path]:
    """Return the file of whole tensors, or those of all shards. Raises ValueError without them."""
    single = folder / f"{kind}.safetensors"
    if single.exists():
        return [single]
    paths = sorted(folder.glob(f"{kind}-*-of-*.safetensors"))
    counts = {match["count"] for path in paths if (match := SHARD_FILE.fullmatch(path.name))}
    if len(counts) != 1 or len(paths) != int(min(counts)):
        raise ValueError(f"{kind}: expected {single.name}, or all of its shards")
    return paths
