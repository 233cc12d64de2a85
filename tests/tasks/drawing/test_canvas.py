"""Text on images: whatever a name holds, it is drawn in one line."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from visionloop.tasks.drawing.canvas import class_label, text_length, text_on, with_caption


@pytest.mark.parametrize("name", ["car\n", "a\nb", "tab\t", "x\r\ny", "\x00", "a\u2028b", "\udcff"])
def test_drawing_never_fails_for_a_name(name):
    label = class_label(0, [name])
    assert "\n" not in label
    draw = ImageDraw.Draw(Image.new("RGB", (80, 20)))
    for anchor in ("la", "mm", "rs"):
        text_on(draw, (9, 9), name, anchor=anchor)
    assert text_length(name, 12) >= 0
    assert with_caption(np.zeros((8, 40, 3), dtype=np.uint8), [name]).shape == (26, 40, 3)
