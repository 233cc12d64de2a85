"""Reader of text files, as editors on any system write them."""

import codecs
import os

# checked in order: UTF-32's little-endian mark begins with that of UTF-16
ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
PROBED_BYTES = 1 << 16  # at each end of a file, which may have gigabytes


class NotText(ValueError):
    """A file that is not text in a known encoding; the message does not name the file."""


def read_text(path: str | os.PathLike[str], errors: str = "strict") -> str:
    r"""Read a text file, with `\n` for the ends of lines of every system.

    A byte order mark chooses UTF-8, UTF-16 (as PowerShell writes) or UTF-32 and is left out;
    without one the text is UTF-8.

    Args:
        path: of the file.
        errors: handling of bytes that are not valid, as for `bytes.decode`.

    Raises:
        NotText: in other encodings.
        OSError: for a file that cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    encoding = next((name for mark, name in ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise NotText(f"not {name} text at byte {error.start}; save it as UTF-8") from None
    if "\0" in text:
        raise NotText("holds zero bytes, so it is no UTF-8 text; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_ends(path: str | os.PathLike[str]) -> bytes:
    """Return the start and the end of a file, for a look at what it is; nothing if unreadable.

    The zero bytes of UTF-16 are left out.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(PROBED_BYTES)
            file.seek(max(file.tell(), file.seek(0, os.SEEK_END) - PROBED_BYTES))
            data += file.read(PROBED_BYTES)
    except OSError:
        return b""
    return data.replace(b"\0", b"")
