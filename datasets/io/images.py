"""Decoding of one image file to RGB bytes, or one clear error.

JPEG and PNG go through torchvision's decoders, from the file's bytes; what they refuse, and every
other format, goes through Pillow. The result is that of `Image.open(path).convert("RGB")`, except
where that is wrong:

- EXIF orientation is applied (a broken EXIF block counts as none);
- 16-bit images are scaled to 8 bits, not clipped;
- alpha is dropped, as torchvision, timm and `load_image` of transformers do: the colors of
  transparent pixels become visible;
- the first frame of an animation or a multi-page file is read.

A file that ends too early is refused, even where a decoder would fill the rest with gray. Damage in
the middle that the decoder can skip is not detected: libjpeg decodes on and only warns.
"""

import io
import os

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
OTHER_SUFFIXES = (".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
IMAGE_SUFFIXES = JPEG_SUFFIXES + OTHER_SUFFIXES

# Formats Pillow may open: those of the suffixes. Its list of all formats has some that start other
# programs.
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM")

# A header with more pixels is taken for a decompression bomb: Pillow's limit, 512 MiB of RGB.
MAX_PIXELS = 178_956_970

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
TRUNCATED = "truncated: the end of the file is missing"
# JPEG frame headers hold the size. 0xC4, 0xC8 and 0xCC between them are tables.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

EXIF_ORIENTATION = 0x0112
EXIF_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(OSError):
    """A file that cannot be read as an image.

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
        raise UnreadableImage(path, _reason(error)) from None


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read (height, width) of the upright image from the header alone. Raises UnreadableImage."""
    try:
        with open(path, "rb") as file, Image.open(file, formats=PILLOW_FORMATS) as image:
            _check_size(image.height, image.width)
            # Pillow applies the orientation of TIFF files by itself
            is_transposed = image.format != "TIFF" and orientation_of(image) >= 5
            return (image.width, image.height) if is_transposed else (image.height, image.width)
    except Exception as error:
        raise UnreadableImage(path, _reason(error)) from None


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
        raise UnreadableImage(path, "empty file")
    return data


def _read_jpeg(data: bytearray) -> torch.Tensor:
    size = jpeg_size(data)
    if size:
        _check_size(*size)
        try:
            return _decode(data)
        except RuntimeError:
            # libjpeg pads a truncated file with gray and Pillow sometimes does too; torchvision
            # refuses it. Only whole files get a second try.
            if not data.rstrip(b"\0").endswith(JPEG_END):
                raise ValueError(TRUNCATED) from None
    return _read_with_pillow(data)


def _read_png(data: bytearray) -> torch.Tensor:
    if len(data) < 33 or data.rfind(PNG_END) < 0:
        raise ValueError(TRUNCATED)
    _check_size(int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big"))
    try:
        return _decode(data)
    except RuntimeError:
        return _read_with_pillow(data)


def _decode(data: bytearray) -> torch.Tensor:
    encoded = torch.frombuffer(data, dtype=torch.uint8)
    image = decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    return _to_8_bits(image) if image.dtype == torch.uint16 else image


def _to_8_bits(image: torch.Tensor) -> torch.Tensor:
    """Scale 0..65535 to 0..255, rounded."""
    return ((image.to(torch.int32) + 128) // 257).to(torch.uint8)


def _read_with_pillow(data: bytearray) -> torch.Tensor:
    # the WebP decoder gives no reason
    if data.startswith(b"RIFF") and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise ValueError(TRUNCATED)
    with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as file:
        image: Image.Image = file
        _check_size(image.height, image.width)
        orientation = 1 if image.format == "TIFF" else orientation_of(image)
        if orientation in EXIF_TRANSPOSES:
            image = image.transpose(EXIF_TRANSPOSES[orientation])
        if image.mode == "F":
            raise ValueError("floating-point pixels have no fixed range; save it with 8 or 16 bits")
        if image.mode == "I" or image.mode.startswith("I;16"):
            gray = torch.from_numpy(np.asarray(image).astype(np.int32))
            if gray.min() < 0 or gray.max() > 65535:
                raise ValueError("32-bit pixels have no fixed range; save it with 8 or 16 bits")
            return _to_8_bits(gray).expand(3, -1, -1).contiguous()
        # [3, H, W] with the memory order of torchvision's decoders
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def jpeg_size(data: bytearray) -> tuple[int, int] | None:
    """Return (height, width) as stored in a JPEG's frame header, or None without one.

    Walks over a handful of segments: 1 to 2 us.
    """
    at, last = 2, len(data) - 9
    while at < last:
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in JPEG_FRAMES:
            return data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
        # a fill byte, or a marker without content
        is_bare = marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += (1 if marker == 0xFF else 2) if is_bare else 2 + (data[at + 2] << 8 | data[at + 3])
    return None


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"decompression bomb? the header says {width} x {height} pixels, "
            f"more than {MAX_PIXELS} in all"
        )


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 without one or with a broken EXIF block.

    XMP is not read: torchvision does not read it.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(EXIF_ORIENTATION, 1))
    except Exception:
        return 1


def _reason(error: Exception) -> str:
    if isinstance(error, UnreadableImage):
        return error.why
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError):
        return f"decompression bomb? {error}"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if "truncated" in str(error).lower():  # each of Pillow's decoders words it differently
        return TRUNCATED
    return (str(error).splitlines() or [""])[0] or type(error).__name__
