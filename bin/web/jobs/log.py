"""Parts of the log of a job, by byte offset."""

import os
from pathlib import Path

from pydantic import BaseModel, Field

from visionloop.bin.web.jobs.folder import log_text


class LogPart(BaseModel):
    """Whole lines of a log. Of a progress bar, which is drawn over, the last state."""

    text: str
    next: int = Field(description="offset of the next part, in bytes")
    size: int = Field(description="of the log, in bytes")
    ended: bool = Field(description="nothing follows")


def read_log(path: Path, offset: int, limit: int, *, is_alive: bool) -> LogPart:
    """Return the part of a log that begins at an offset.

    Args:
        path: the log; an absent one is empty.
        offset: in bytes, the `next` of the part before; -1: the last part.
        limit: most bytes of a part.
        is_alive: more may be written; the last line waits until it is whole.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = max(0, size - limit) if offset < 0 else min(offset, size)
            file.seek(start)
            content = file.read(limit)
    except OSError:
        return LogPart(text="", next=0, size=0, ended=not is_alive)
    if offset < 0 and start > 0:  # from the next whole line on
        _, newline, rest = content.partition(b"\n")
        if newline:
            start, content = start + len(content) - len(rest), rest
    is_last = start + len(content) >= size
    if not is_last or is_alive:
        whole = content[: content.rfind(b"\n") + 1]
        # a line longer than a part is cut, between two characters
        content = whole or (content[: whole_characters(content)] if len(content) >= limit else b"")
    end = start + len(content)
    return LogPart(text=log_text(content), next=end, size=size, ended=not is_alive and end >= size)


def whole_characters(content: bytes) -> int:
    """Return the length of UTF-8 text without a character that is cut at its end."""
    for back in range(1, min(4, len(content)) + 1):
        byte = content[-back]
        if byte & 0xC0 == 0x80:
            continue  # inside a character
        length = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
        return len(content) - back if length > back else len(content)
    return len(content)
