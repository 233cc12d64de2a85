"""Decoding of one image file to RGB bytes, or one clear error.

JPEG goes through simplejpeg, a thin layer over libjpeg-turbo; what it refuses, CMYK, and every
other format goes through Pillow. Both give the same pixels of a JPEG. The comparison with other
decoders is in bin/benchmarks/RESULTS.md. The result is that of `Image.open(path).convert("RGB")`,
except where that is wrong:

- EXIF orientation is applied, see headers.py;
- 16-bit images are scaled to 8 bits, not clipped;
- alpha is dropped, as torchvision, timm and `load_image` of transformers do: the colors of
  transparent pixels become visible;
- the first frame of an animation or a multi-page file is read.

A file that ends too early is refused, even where a decoder would fill the rest with gray. Damage in
the middle that the decoder can skip is not detected: libjpeg decodes on and only warns.
"""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from typing import IO

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

from visionloop.datasets.io.headers import (
    EXIF_ORIENTATION,
    JPEG_START,
    PNG_END,
    PNG_START,
    TURNS,
    WEBP_START,
    Bytes,
    exif_orientation,
    foreign_content,
    has_jpeg_end,
    jpeg_frame,
    png_without_notes,
    stored_size,
    upright,
    upright_size,
)

# Formats Pillow may open: those of IMAGE_SUFFIXES. Its list of all formats has some that start
# other programs.
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM")

# A header with more pixels is taken for a decompression bomb: Pillow's limit, 512 MiB of RGB.
MAX_PIXELS = 178_956_970

# Counts up when the pixels of any file change: caches on disk are then made again.
DECODING = 2

SIMPLEJPEG_COMPONENTS = (1, 3)  # gray and color; it converts CMYK otherwise than Pillow

EMPTY, TRUNCATED = "empty file", "truncated: the end of the file is missing"

# Pillow keeps the high bytes alone of PNGs of 16 bits with several channels. Raw modes that read
# the same rows as bytes: first those that give the high bytes, then those that give the low ones.
# Gray with alpha comes as four channels, its high and its low byte first.
RAW_16_BITS = {
    "RGB;16B": ("RGB;16B", "RGB;16L"),
    "RGBA;16B": ("RGBA;16B", "RGBA;16L"),
    "LA;16B": ("RGBA",),
}


class UnreadableImage(OSError):
    """A file that cannot be read as an image; `errno` is ENOMEM where memory ran out.

    Attributes:
        path: the file.
        why: the reason in a few words.
    """

    def __init__(self, path: str | os.PathLike[str], why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = str(path), why

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # workers send their errors pickled
        return type(self), (self.path, self.why)


def read_image(path: str | os.PathLike[str]) -> torch.Tensor:
    """Read an image as RGB, uint8 [3, H, W], upright. Raises UnreadableImage."""
    return decode_bytes(path, read_bytes(path))


def decode_bytes(path: str | os.PathLike[str], data: bytearray) -> torch.Tensor:
    """Decode the bytes of a file, see `read_image`. Raises UnreadableImage.

    Args:
        path: of the file, for the message.
        data: its bytes.
    """
    try:
        if data.startswith(JPEG_START):
            return _read_jpeg(data)
        if data.startswith(PNG_START):
            return _read_png(data)
        return _read_with_pillow(data)
    # a decoder given damaged bytes may raise anything: SyntaxError, struct.error, zlib.error, ...
    except Exception as error:
        raise _unreadable(path, error, data) from None


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read (height, width) of the upright image from the header alone. Raises UnreadableImage."""
    with _headers(path) as (file, data):
        size_hw = stored_size(data)
        if size_hw:
            _check_size(*size_hw)
            return upright_size(size_hw, exif_orientation(data))
        with open_with_pillow(file) as image:
            _check_size(image.height, image.width)
            # Pillow tells the upright size of a TIFF; exif_orientation is 1 there
            return upright_size((image.height, image.width), exif_orientation(data))


def read_orientation(path: str | os.PathLike[str]) -> int:
    """Read the orientation that decoding applies, 1 to 8; see headers.py. Raises UnreadableImage.

    For messages about images that are turned.
    """
    with _headers(path) as (file, data):
        if stored_size(data):
            return exif_orientation(data)
        with open_with_pillow(file) as image:
            tags = getattr(image, "tag_v2", None)  # of a TIFF alone
            value = exif_orientation(data) if tags is None else tags.get(EXIF_ORIENTATION, 1)
            return value if value in TURNS else 1


@contextmanager
def _headers(path: str | os.PathLike[str]) -> Iterator[tuple[IO[bytes], mmap]]:
    """Open a file and map it, of which only the parts that are used are read.

    Raises:
        UnreadableImage: for every error inside the block.
    """
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise ValueError(EMPTY)
            with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                try:
                    yield file, data
                except Image.UnidentifiedImageError as error:
                    raise ValueError(_reason(error, data)) from None
    except Exception as error:
        raise _unreadable(path, error) from None


def exchanged_sides(path: str | os.PathLike[str] | None, drawn: str) -> str:
    """Return the reason for annotations with width and height exchanged, for messages.

    Args:
        path: of the image; None where it is not known.
        drawn: the annotations with their verb, such as "the boxes were".
    """
    try:
        is_turned = path is not None and read_orientation(path) >= 5
    except UnreadableImage:
        is_turned = False
    if is_turned:
        return f"{drawn} drawn before its EXIF orientation was applied"
    return "width and height are exchanged"


def open_with_pillow(source: IO[bytes] | str | os.PathLike[str]) -> Image.Image:
    """Open an image of one of PILLOW_FORMATS; its orientation is not applied, but for TIFF."""
    image: Image.Image = Image.open(source, formats=PILLOW_FORMATS)
    if image.format == "TIFF":
        # Pillow would take the orientation from there if the tag is missing, but not the size
        image.info.pop("xmp", None)
    return image


def read_bytes(path: str | os.PathLike[str]) -> bytearray:
    """Read a whole file; 5 us, half the time of torchvision's read_file.

    The result is a bytearray since torch requires writable memory.

    Raises:
        UnreadableImage: also for an empty file.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = bytearray(file.read())
    except OSError as error:
        raise UnreadableImage(path, error.strerror or str(error)) from None
    if not data:
        raise UnreadableImage(path, EMPTY)
    return data


def _read_jpeg(data: bytearray) -> torch.Tensor:
    frame = jpeg_frame(data)
    if frame:
        _check_size(*frame[:2])
        pixels = decode_jpeg(data, frame[:2]) if frame[2] in SIMPLEJPEG_COMPONENTS else None
        if pixels is not None:
            return upright(torch.from_numpy(pixels), exif_orientation(data)).permute(2, 0, 1)
        # libjpeg fills what is missing with gray and only warns, and Pillow sometimes lets it
        if not has_jpeg_end(data):
            raise ValueError(TRUNCATED)
    return _read_with_pillow(data)


def decode_jpeg(data: bytearray, size_hw: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Decode a JPEG, not upright, uint8 [H, W, 3]; None where libjpeg-turbo fails or warns.

    Without `strict`, simplejpeg ignores failures too, and returns memory that nothing was written
    to.

    Args:
        data: bytes of the file.
        size_hw: decode at the smallest eighth of the full size that is at least as large.
    """
    try:
        return simplejpeg.decode_jpeg(data, min_height=size_hw[0], min_width=size_hw[1])
    except ValueError:
        return None


def _read_png(data: bytearray) -> torch.Tensor:
    if len(data) < 33 or data.rfind(PNG_END) < 0:
        raise ValueError(TRUNCATED)
    try:
        return _read_with_pillow(data)
    except Exception:
        # a wrong checksum of a text is enough
        return _read_with_pillow(png_without_notes(data), exif_orientation(data))


def _read_with_pillow(data: bytearray, orientation: int | None = None) -> torch.Tensor:
    """Decode the bytes of a file, upright by an orientation; None: by the file's own."""
    # the WebP decoder gives no reason
    if data.startswith(WEBP_START) and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise ValueError(TRUNCATED)
    with open_with_pillow(io.BytesIO(data)) as image:
        _check_size(image.height, image.width)
        if orientation is None:
            orientation = exif_orientation(data)  # 1 of a TIFF, which Pillow turns by itself
        values = read_16_bits(image, data)
        if values is None:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        else:
            pixels = _to_8_bits(torch.from_numpy(values.astype(np.int32)))
            if pixels.ndim == 2:
                pixels = pixels[..., None].expand(-1, -1, 3).contiguous()
    # [3, H, W] with the memory order of simplejpeg
    return upright(pixels, orientation).permute(2, 0, 1)


def read_16_bits(image: Image.Image, data: bytearray) -> NDArray[np.uint16] | None:
    """Return the values of an image of 16 bits, uint16 [H, W] or [H, W, 3], or None of another.

    Args:
        image: the image, open.
        data: bytes of its file.

    Raises:
        ValueError: for pixels without a fixed range.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        gray = np.asarray(image).astype(np.int32)
        if gray.min() < 0 or gray.max() > 65535:
            raise ValueError(
                f"gray values from {gray.min()} to {gray.max()} have no fixed range; save it with "
                "8 or 16 bits without a sign"
            )
        return gray.astype(np.uint16)
    if image.format != "PNG" or not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return None
    raw_mode = image.tile[0].args
    if not isinstance(raw_mode, str) or raw_mode not in RAW_16_BITS:
        return None
    parts = [_read_raw(data, mode) for mode in RAW_16_BITS[raw_mode]]
    high, low = parts if len(parts) == 2 else (parts[0][..., 0], parts[0][..., 1])
    values: NDArray[np.uint16] = np.uint16(256) * high + low
    return values if values.ndim == 2 else values[..., :3]


def _read_raw(data: bytearray, raw_mode: str) -> NDArray[np.uint8]:
    """Decode a PNG whose rows hold pixels of another raw mode of Pillow, uint8 [H, W, C]."""
    with open_with_pillow(io.BytesIO(data)) as image:
        assert isinstance(image, ImageFile.ImageFile), "it comes from a file"
        image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        return np.array(image)


def _to_8_bits(image: torch.Tensor) -> torch.Tensor:
    """Scale 0..65535 to 0..255, rounded."""
    return ((image.to(torch.int32) + 128) // 257).to(torch.uint8)


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"decompression bomb? the header says {width} x {height} pixels, "
            f"more than {MAX_PIXELS} in all"
        )


def _unreadable(
    path: str | os.PathLike[str], error: Exception, data: Bytes = b""
) -> UnreadableImage:
    unreadable = UnreadableImage(path, _reason(error, data))
    if isinstance(error, MemoryError):
        unreadable.errno = errno.ENOMEM
    elif isinstance(error, OSError):
        unreadable.errno = error.errno
    return unreadable


def _reason(error: Exception, data: Bytes = b"") -> str:
    if isinstance(error, UnreadableImage):
        return error.why
    if isinstance(error, Image.UnidentifiedImageError):
        content = foreign_content(data)
        return "not an image of a known format" + (f", but {content}" if content else "")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError):
        return f"decompression bomb? {error}"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if "truncated" in str(error).lower():  # each of Pillow's decoders words it differently
        return TRUNCATED
    return (str(error).splitlines() or [""])[0] or type(error).__name__
