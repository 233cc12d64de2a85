"""Fonts of this machine that can write a text: class names come in every script."""

import contextlib
import logging
import shutil
import subprocess
import unicodedata
from functools import lru_cache

from PIL import ImageFont

log = logging.getLogger(__name__)

# tried in this order; Pillow's own font, which has Latin letters alone, is always there
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf"),
    *("arialuni.ttf", "msyh.ttc", "malgun.ttf", "NanumGothic.ttf", "AppleSDGothicNeo.ttc"),
    *("YuGothM.ttc", "meiryo.ttc", "PingFang.ttc", "wqy-microhei.ttc"),
    *("DroidSansFallbackFull.ttf", "NotoSansArabic-Regular.ttf", "NotoEmoji-Regular.ttf"),
    *("Symbola.ttf", "seguisym.ttf"),
)
NO_GLYPH = "\U0010fffe"  # a code point that no font draws
# for `fc-list`, which may have to build its index the first time
TIMEOUT_SECONDS = 10
# categories of letters that join, mark or turn others and need no own glyph
UNDRAWN = ("Cf", "Mn", "Me")
STYLES = ("regular", "book", "medium", "roman", "")


@lru_cache
def load_fonts(size: int) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, ...]:
    """Return the fonts of `FONTS` that this machine has, Pillow's own last."""
    fonts = []
    for name in FONTS:
        with contextlib.suppress(OSError):
            fonts.append(ImageFont.truetype(name, size))
    return (*fonts, ImageFont.load_default(size))


@lru_cache(maxsize=4096)
def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont | None:
    """Return a font that has a glyph for every letter of `text`, or None."""
    for font in load_fonts(size):
        if has_glyphs(font, text):
            return font
    for path, index in installed_fonts("".join(sorted(drawn_letters(text)))):
        with contextlib.suppress(OSError):  # a bitmap font does not have every size
            font = ImageFont.truetype(path, size, index=index)
            if has_glyphs(font, text):
                return font
    return None


def drawn_letters(text: str) -> set[str]:
    """Return the letters of a text that need a glyph."""
    return {
        letter
        for letter in text
        if not letter.isspace() and unicodedata.category(letter) not in UNDRAWN
    }


def has_glyphs(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> bool:
    """Return True if the font has a glyph for every letter of the text."""
    blank = bytes(font.getmask(NO_GLYPH))
    return all(bytes(font.getmask(letter)) != blank for letter in drawn_letters(text))


@lru_cache(maxsize=4096)
def installed_fonts(letters: str) -> tuple[tuple[str, int], ...]:
    """Return ((path, index in the file), ..) of installed fonts with all letters, upright first.

    Without the program `fc-list` the result is empty.
    """
    program = shutil.which("fc-list")
    if not program or not letters:
        return ()
    pattern = ":charset=" + " ".join(f"{ord(letter):x}" for letter in letters)
    command = [program, pattern, "--format", "%{file}|%{index}|%{style}\n"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        lines = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True
        ).stdout.splitlines()
        rows = sorted(
            (_style_rank(style), path, int(index) & 0xFFFF)
            for path, index, style in (line.split("|", 2) for line in lines)
        )
        return tuple((path, index) for _, path, index in rows)
    return ()


def _style_rank(style: str) -> int:
    style = style.lower()
    return next((i for i, word in enumerate(STYLES) if word and word in style), len(STYLES))


_warned: list[str] = []


def warn_unwritable(name: str, label: int) -> None:
    """Log once per process that no font of this machine can write a class name."""
    if _warned:
        return
    _warned.append(name)
    log.warning(
        "no font of this machine has the letters of class %r: images show such a class by its "
        "label, #%d; install a font with its letters (fonts-noto-cjk, fonts-noto-core)",
        name,
        label,
    )
