"""The code of the model cards, run as it stands in the card but for the smallest score."""

import numpy as np
import pytest
from PIL import Image

from visionloop.tasks.segmentation.export import IMAGENET_MEAN, IMAGENET_STD, write_processor
from visionloop.tasks.segmentation.instance.card import card_text as instance_card
from visionloop.tasks.segmentation.panoptic.card import card_text as panoptic_card
from visionloop.tasks.segmentation.semantic.card import card_text as semantic_card

CLASSES = ("sky", "road", "car")
IS_THING = (False, False, True)
ORIENTATION = 0x0112  # EXIF tag; 6: turn by 90 degrees clockwise to see it upright


@pytest.mark.parametrize(
    "card",
    [semantic_card(32), instance_card(32), panoptic_card(32, CLASSES, IS_THING)],
    ids=["semantic", "instance", "panoptic"],
)
def test_a_photo_rotated_by_exif_gives_what_the_upright_one_gives(
    card, save_tiny, tmp_path, monkeypatch, capsys
):
    model = save_tiny(CLASSES, is_thing=list(IS_THING))
    write_processor(
        model, 32, IMAGENET_MEAN, IMAGENET_STD, whole_images="Semantic" not in card.kind
    )
    # random weights are never certain
    code = card.code.replace("THIS FOLDER", str(model))
    code = code.replace("threshold=0.8", "threshold=0.0").replace("values > 0.5", "values > 0.0")
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    pixels[:, :20] //= 4
    upright = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    printed = []
    for image, options in ((upright, {}), (upright.transpose(Image.Transpose.ROTATE_90), exif)):
        # without loss, whatever the name says
        image.save("image.jpg", format="PNG", **({"exif": options} if options else {}))
        exec(code, {})
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0]
