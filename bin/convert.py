"""Turn annotations in other forms into those that detection and segmentation read, with the images beside them; and weights for LPIPS.

    bin/convert.py voc VOCdevkit/VOC2007 data/voc
    bin/convert.py yolo football/ data/football --images link
    bin/convert.py imagefolder flowers/ data/flowers
    bin/convert.py masks labelled/ data/cells --val-split 0.2
    bin/convert.py lpips --backbone alexnet.safetensors --heads alex.safetensors --output
    lpips.safetensors

For detection OUTPUT then holds train.json, val.json and test.json (COCO), as far as the source has
them, and the images in folders of the same names; for segmentation, which `masks` is for,
images/train/, masks/train/ and so on, and classes.json. convert.json says where all came from and
what was left out. With `--images none` the folders of images are links to the folders of the
source, so that images are found as long as nobody moves the source.
"""

from functools import partial

import click

from visionloop.bin.commands.cli import run_commands, traceback_option

HOW = ["copy", "link", "none"]


@click.group(
    "convert",
    help="Turn annotations in other forms into COCO json or masks, and weights into the file that LPIPS reads.",
    context_settings={"max_content_width": 120},
)
def command():
    pass


def conversion(name, help):
    """A command `name SOURCE OUTPUT` with the options that all conversions share."""

    def decorate(function):
        for option in (
            traceback_option,
            click.option(
                "--skip-broken", is_flag=True, help="leave out what is broken, and say so"
            ),
            click.option(
                "--images",
                type=click.Choice(HOW),
                default="copy",
                show_default=True,
                help="in OUTPUT: copies; a symbolic link for each; or none, and a link to the source's folder for each split",
            ),
            click.argument("output"),  # applied from the last to the first
            click.argument("source"),
        ):
            function = option(function)
        return command.command(
            name,
            help=f"{help} OUTPUT must be absent, empty, or an earlier conversion, which it replaces.",
        )(function)

    return decorate


val_split_option = click.option(
    "--val-split",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="share of train that becomes val, where there is no val",
)


@conversion(
    "voc",
    "Pascal VOC: Annotations/*.xml, JPEGImages/, ImageSets/Main/*.txt. Without lists all is train.",
)
@click.option(
    "--difficult",
    type=click.Choice(["keep", "crowd", "drop"]),
    default="keep",
    show_default=True,
    help="objects marked difficult: like others; as crowd, so that finding or missing them does not count; or not at all",
)
@val_split_option
def voc(difficult, val_split, **options):
    from visionloop.bin.converters.voc import read_voc

    _convert_boxes("voc", partial(read_voc, difficult=difficult, val_split=val_split), **options)


@conversion("yolo", "YOLO: data.yaml, images/ and labels/.")
def yolo(**options):
    from visionloop.bin.converters.yolo import read_yolo_splits

    _convert_boxes("yolo", read_yolo_splits, **options)


@conversion(
    "imagefolder", "Folders by class: train/<class>/*.jpg. One box around each whole image."
)
def imagefolder(**options):
    from visionloop.bin.converters.imagefolder import read_image_folder

    _convert_boxes("imagefolder", read_image_folder, **options)


@conversion(
    "masks",
    "Outlines or coloured masks as class ids, for segmentation: COCO json with polygons or run lengths; Pascal VOC: "
    "SegmentationClass/*.png, JPEGImages/, ImageSets/Segmentation/*.txt; labelme: one json beside each image.",
)
@click.option(
    "--from",
    "kind",
    type=click.Choice(["coco", "voc", "labelme"]),
    help="what SOURCE is, where it is not clear",
)
@click.option(
    "--classes",
    "classes_file",
    metavar="FILE",
    help="voc: classes.json or CVAT's labelmap.txt with names and colours; default: the labelmap.txt of SOURCE, or VOC's 21 classes",
)
@click.option(
    "--background",
    metavar="NAME|ignore",
    default="background",
    show_default=True,
    help="pixels without annotation: a class of this name, which is then class 0; or ignored",
)
@val_split_option
def masks(kind, classes_file, background, val_split, **options):
    from visionloop.bin.converters.conversion import convert
    from visionloop.bin.converters.mask_sources import read_masks
    from visionloop.bin.converters.masks import MASKS

    read = partial(
        read_masks, kind=kind, background=background, val_split=val_split, classes_file=classes_file
    )
    convert("masks", read, MASKS, **options)


@command.command(
    "lpips",
    help="The file that super-resolution's --lpips-weights takes: AlexNet and the heads of LPIPS 0.1 in one.",
)
@click.option(
    "--backbone",
    required=True,
    metavar="FILE",
    help="torchvision's AlexNet as safetensors; a pickle (.pth) is not opened",
)
@click.option(
    "--heads",
    required=True,
    metavar="FILE",
    help="the published heads, lin0.model.1.weight and so on, as safetensors",
)
@click.option(
    "--output",
    required=True,
    metavar="FILE",
    help="safetensors file to write; must be absent, or an earlier one of ours",
)
@traceback_option
def lpips(backbone, heads, output):
    from visionloop.bin.converters.lpips import convert_lpips

    convert_lpips(backbone, heads, output)
    print(f"{output}: LPIPS, AlexNet, version 0.1")


def _convert_boxes(kind, read, **options):
    from visionloop.bin.converters.coco_json import BOXES  # here: `--help` must be quick
    from visionloop.bin.converters.conversion import convert

    convert(kind, read, BOXES, **options)


def main():
    run_commands(command)


if __name__ == "__main__":
    main()
