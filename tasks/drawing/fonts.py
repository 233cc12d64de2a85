"""Which font of this machine can write a text: class names come in every script."""

import contextlib
import logging
import shutil
import subprocess
import unicodedata
from functools import lru_cache

from PIL import ImageFont

log = logging.getLogger(__name__)

# tried in this order; Pillow's own font, which knows Latin alone, is the last that must exist
FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arialuni.ttf", "msyh.ttc", "malgun.ttf",
    "NanumGothic.ttf", "AppleSDGothicNeo.ttc", "YuGothM.ttc", "meiryo.ttc", "PingFang.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf",
    "NotoSansArabic-Regular.ttf", "NotoEmoji-Regular.ttf", "Symbola.ttf", "seguisym.ttf",
)  # fmt: skip
NO_GLYPH = "\U0010fffe"  # a code point that no font draws
ASK_SECONDS = 10  # for the fonts of the machine; the first time their index may have to be made
UNDRAWN = (
    "Cf",
    "Mn",
    "Me",
)  # kinds of letters that join, mark or turn others and need no glyph of their own
STYLES = ("regular", "book", "medium", "roman", "")


@lru_cache
def load_fonts(size):
    """The fonts of this machine that we know, Pillow's own last."""
    found = []
    for name in FONTS:
        with contextlib.suppress(OSError):
            found.append(ImageFont.truetype(name, size))
    return (*found, ImageFont.load_default(size))


@lru_cache(maxsize=4096)
def font_for(text, size):
    """A font that has a glyph for every letter of `text`, or None."""
    for font in load_fonts(size):
        if writes(font, text):
            return font
    for path, index in installed_fonts("".join(sorted(drawn_letters(text)))):
        with contextlib.suppress(OSError):  # a font of images has no such size
            font = ImageFont.truetype(path, size, index=index)
            if writes(font, text):
                return font
    return None


def drawn_letters(text):
    """The letters of a text that need a glyph."""
    return {
        letter
        for letter in text
        if not letter.isspace() and unicodedata.category(letter) not in UNDRAWN
    }


def writes(font, text):
    """Whether a font has a glyph for every letter of a text."""
    blank = bytes(font.getmask(NO_GLYPH))
    return all(bytes(font.getmask(letter)) != blank for letter in drawn_letters(text))


@lru_cache(maxsize=4096)
def installed_fonts(letters):
    """((path, number in the file), ..) of installed fonts that have all these letters, upright ones first; () where nobody can be asked."""
    program = shutil.which("fc-list")
    if not program or not letters:
        return ()
    wanted = ":charset=" + " ".join(f"{ord(letter):x}" for letter in letters)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = [program, wanted, "--format", "%{file}|%{index}|%{style}\n"]
        lines = subprocess.run(
            asked, capture_output=True, text=True, timeout=ASK_SECONDS, check=True
        ).stdout.splitlines()
        rows = sorted(
            (_rank(style), path, int(index) & 0xFFFF)
            for path, index, style in (line.split("|", 2) for line in lines)
        )
        return tuple((path, index) for _, path, index in rows)
    return ()


def _rank(style):
    return next(
        (place for place, word in enumerate(STYLES) if word and word in style.lower()), len(STYLES)
    )


_warned = []


def warn_of(name, number):
    """Say once that nothing here can write a class name."""
    if _warned:
        return
    _warned.append(name)
    hint = "a font with its letters helps (fonts-noto-cjk, fonts-noto-core)"
    log.warning(
        "no font of this machine writes the class %r: in images such a class is its number, #%d; %s",
        name,
        number,
        hint,
    )
