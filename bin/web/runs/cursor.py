"""Cursor of a reader of metrics.jsonl: an offset, and a checksum of the bytes before it.

A resumed run cuts its file and writes on, so that an offset alone could lie in the middle of
another line; with the checksum this is noticed after any time, by any server. A plain offset is
accepted as well, and checked by the size of the file and the end of a line alone.
"""

import os
import re
import zlib

from visionloop.bin.web.problems import Problem

CURSOR_PATTERN = r"^[0-9]{1,15}(-[0-9a-f]{8})?$"
CHECKED_BYTES = 1024  # before an offset: they tell whether the file was cut and has grown again


def cursor_text(offset: int, checksum: int) -> str:
    """Return the id of an event: the offset after its line, and a checksum of what is before."""
    return f"{offset}-{checksum:08x}" if offset else "0"


def parse_cursor(cursor: str) -> tuple[int, int | None]:
    """Return (offset, checksum or None) of a cursor. Raises Problem (422) for another text."""
    if not re.fullmatch(CURSOR_PATTERN, cursor, re.ASCII):
        raise Problem(422, "bad_input", "cursor: expected the id of an event, or 0", field="cursor")
    offset, dash, checksum = cursor.partition("-")
    return int(offset), int(checksum, 16) if dash else None


def is_cursor_valid(file: int, offset: int, checksum: int | None) -> bool:
    """Return whether a cursor is at the end of a line of the file, as when it was given out."""
    if offset == 0:
        return True
    if offset > os.fstat(file).st_size:
        return False
    if checksum is None:
        return os.pread(file, 1, offset - 1) == b"\n"
    return checksum_before(file, offset) == checksum


def checksum_before(file: int, offset: int) -> int:
    """Return a checksum of the bytes before an offset.

    A line begins with its time, and a line that is removed moves all that follow: equal bytes in
    the same place mean that nothing before them has changed.
    """
    start = max(0, offset - CHECKED_BYTES)
    return zlib.crc32(os.pread(file, offset - start, start))
