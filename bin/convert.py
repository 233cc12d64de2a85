"""Convert annotations into the formats of detection and segmentation, and weights for LPIPS.

    bin/convert.py voc VOCdevkit/VOC2007 data/voc
    bin/convert.py yolo football/ data/football --images link
    bin/convert.py imagefolder flowers/ data/flowers
    bin/convert.py masks labelled/ data/cells --val-split 0.2
    bin/convert.py instances labelled/ data/cells --val-split 0.2
    bin/convert.py panoptic data/cells data/panoptic --background glass
    bin/convert.py lpips --backbone alex.safetensors --heads lin.safetensors --output l.safetensors

For detection and instance segmentation, OUTPUT holds train.json, val.json and test.json (COCO) for
the splits that the source has, and the images in folders of the same names. For panoptic
segmentation it holds panoptic_train.json and panoptic_train/*.png instead. For semantic
segmentation, which `masks` is for, it holds images/train/, masks/train/ and so on, and
classes.json. convert.json names the source and lists everything that was left out. With
`--images none` the folders of images are links to the folders of the source: they work as long as
the source is not moved.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.options import Decorator, traceback_option

if TYPE_CHECKING:
    from visionloop.bin.converters.conversion import ConversionReport
    from visionloop.datasets.detection.index import DetectionIndex


@click.group(
    "convert",
    help="Convert annotations into COCO json or mask files, and weights into the file of LPIPS.",
    context_settings={"max_content_width": 120},
)
def command() -> None:
    """Group the conversions."""


def conversion(name: str, help: str) -> Decorator:
    """Return a decorator for a command `name SOURCE OUTPUT` with the options of all conversions."""
    options = (
        traceback_option,
        click.option(
            "--skip-broken",
            is_flag=True,
            help="Leave out images and annotations that cannot be converted, with a warning for "
            "each, instead of ending with an error",
        ),
        click.option(
            "--images",
            type=click.Choice(["copy", "link", "none"]),
            default="copy",
            show_default=True,
            help="Images in OUTPUT: a copy of each, a symbolic link to each, or none, with one "
            "link per split to the folder of the source",
        ),
        click.argument("output"),  # applied from the last to the first
        click.argument("source"),
    )
    note = "OUTPUT must be absent, empty, or an earlier conversion, which is replaced."

    def decorate(function: Callable[..., None]) -> click.Command:  # type: ignore[explicit-any]  # options differ
        for option in options:
            function = option(function)
        return command.command(name, help=f"{help} {note}")(function)

    return decorate


val_split_option = click.option(
    "--val-split",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Fraction of train that becomes val, chosen by the hash of the image's name; only for a "
    "source without val",
)


@conversion(
    "voc",
    "Convert Pascal VOC boxes: Annotations/*.xml, JPEGImages/ and ImageSets/Main/*.txt; an xml "
    "beside each image (labelImg); or these in train/, valid/ and test/ (Roboflow). Without lists "
    "or such folders every annotation is in train.",
)
@click.option(
    "--difficult",
    type=click.Choice(["keep", "crowd", "drop"]),
    default="keep",
    show_default=True,
    help="Objects marked difficult: convert them like others, as crowd (neither detecting nor "
    "missing them counts), or not at all",
)
@val_split_option
def voc(
    difficult: str, val_split: float, source: str, output: str, images: str, skip_broken: bool
) -> None:
    """Run `convert voc`."""
    from visionloop.bin.converters.voc import read_voc

    read = partial(read_voc, difficult=difficult, val_split=val_split)
    _convert_boxes("voc", read, source, output, images, skip_broken)


@conversion("yolo", "Convert a YOLO dataset: data.yaml, images/ and labels/.")
def yolo(source: str, output: str, images: str, skip_broken: bool) -> None:
    """Run `convert yolo`."""
    from visionloop.bin.converters.yolo import read_yolo_splits

    _convert_boxes("yolo", read_yolo_splits, source, output, images, skip_broken)


@conversion(
    "imagefolder",
    "Convert image folders by class, train/<class>/*.jpg, with one box around each whole image.",
)
def imagefolder(source: str, output: str, images: str, skip_broken: bool) -> None:
    """Run `convert imagefolder`."""
    from visionloop.bin.converters.imagefolder import read_image_folder

    _convert_boxes("imagefolder", read_image_folder, source, output, images, skip_broken)


@conversion(
    "masks",
    "Convert outlines or colored masks into masks of class ids, for segmentation. SOURCE is COCO "
    "json with polygons or run lengths; Pascal VOC with SegmentationClass/*.png, JPEGImages/ and "
    "ImageSets/Segmentation/*.txt; or labelme with one json for each image.",
)
@click.option(
    "--from",
    "kind",
    type=click.Choice(["coco", "voc", "labelme"]),
    help="Format of SOURCE (default: detected from its files)",
)
@click.option(
    "--classes",
    "classes_file",
    metavar="FILE",
    help="For voc: classes.json or CVAT's labelmap.txt with class names and colors (default: the "
    "labelmap.txt of SOURCE, or the 21 classes of VOC)",
)
@click.option(
    "--background",
    metavar="NAME|ignore",
    default="background",
    show_default=True,
    help="Class of the pixels without annotation, which becomes class 0; ignore: these pixels are "
    "ignored in training and evaluation",
)
@val_split_option
def masks(
    kind: str | None,
    classes_file: str | None,
    background: str,
    val_split: float,
    source: str,
    output: str,
    images: str,
    skip_broken: bool,
) -> None:
    """Run `convert masks`."""
    from visionloop.bin.converters.conversion import convert
    from visionloop.bin.converters.mask_sources import read_masks
    from visionloop.bin.converters.masks import MASKS

    read = partial(
        read_masks, kind=kind, background=background, val_split=val_split, classes_file=classes_file
    )
    convert("masks", read, MASKS, source, output, images=images, skip_broken=skip_broken)


SEGMENT_SOURCES = (
    "SOURCE is COCO json with polygons or run lengths; COCO panoptic (panoptic_train.json and "
    "panoptic_train/*.png); labelme with one json for each image, where shapes of one label with "
    "equal group_id are one object; YOLO with outlines; Cityscapes (gtFine/ and leftImg8bit/); "
    "Pascal VOC with SegmentationClass/, SegmentationObject/ and JPEGImages/; or images/, masks/, "
    "instances/ (numbers of objects) and classes.json."
)


def segment_options(function: Callable[..., None]) -> Callable[..., None]:  # type: ignore[explicit-any]  # options differ
    """Add the options of the conversions that keep objects apart."""
    options = (
        val_split_option,
        click.option(
            "--classes",
            "classes_file",
            metavar="FILE",
            help="For voc: classes.json or CVAT's labelmap.txt with class names and colors "
            "(default: the labelmap.txt of SOURCE, or the 21 classes of VOC)",
        ),
        click.option(
            "--things",
            metavar="NAME,...",
            help="Classes whose objects are counted; the others are stuff, one segment in each "
            "image (default: as SOURCE says, or all classes)",
        ),
        click.option(
            "--from",
            "kind",
            type=click.Choice(
                ["coco", "coco-panoptic", "labelme", "yolo", "cityscapes", "voc", "masks"]
            ),
            help="Format of SOURCE (default: detected from its files)",
        ),
    )
    for option in options:  # applied from the last to the first
        function = option(function)
    return function


@conversion(
    "instances",
    "Convert objects into COCO json with outlines, for instance segmentation and detection. "
    + SEGMENT_SOURCES,
)
@segment_options
def instances(
    kind: str | None,
    things: str | None,
    classes_file: str | None,
    val_split: float,
    source: str,
    output: str,
    images: str,
    skip_broken: bool,
) -> None:
    """Run `convert instances`."""
    from visionloop.bin.converters.conversion import convert
    from visionloop.bin.converters.segments.instances_json import INSTANCES
    from visionloop.bin.converters.segments.sources import read_segments

    read = partial(
        read_segments, kind=kind, things=things, val_split=val_split, classes_file=classes_file
    )
    convert("instances", read, INSTANCES, source, output, images=images, skip_broken=skip_broken)


@conversion(
    "panoptic",
    "Convert objects and stuff into COCO panoptic json and PNGs, for panoptic segmentation. Where "
    "outlines of COCO or YOLO overlap, the smaller one is on top; of labelme, the later one. "
    + SEGMENT_SOURCES,
)
@click.option(
    "--background",
    metavar="NAME",
    help="Class of stuff of the pixels without annotation (default: none, they are void, which is "
    "ignored in evaluation)",
)
@segment_options
def panoptic(
    background: str | None,
    kind: str | None,
    things: str | None,
    classes_file: str | None,
    val_split: float,
    source: str,
    output: str,
    images: str,
    skip_broken: bool,
) -> None:
    """Run `convert panoptic`."""
    from visionloop.bin.converters.conversion import convert
    from visionloop.bin.converters.segments.panoptic_files import panoptic_format
    from visionloop.bin.converters.segments.sources import read_segments

    read = partial(
        read_segments, kind=kind, things=things, val_split=val_split, classes_file=classes_file
    )
    written = panoptic_format(background)
    convert("panoptic", read, written, source, output, images=images, skip_broken=skip_broken)


@command.command(
    "lpips",
    help="Write the file of super-resolution's --lpips-weights: AlexNet and the heads of LPIPS 0.1 "
    "in one.",
)
@click.option(
    "--backbone",
    required=True,
    metavar="FILE",
    help="Weights of torchvision's AlexNet as safetensors; a pickle (.pth) is not opened",
)
@click.option(
    "--heads",
    required=True,
    metavar="FILE",
    help="Published heads of LPIPS, lin0.model.1.weight and so on, as safetensors",
)
@click.option(
    "--output",
    required=True,
    metavar="FILE",
    help="Safetensors file to write; must be absent or an earlier output of this command",
)
@traceback_option
def lpips(backbone: str, heads: str, output: str) -> None:
    """Run `convert lpips`."""
    from visionloop.bin.converters.lpips import convert_lpips

    convert_lpips(backbone, heads, output)
    print(f"{output}: LPIPS, AlexNet, version 0.1")


def _convert_boxes(
    kind: str,
    read: "Callable[[str, ConversionReport], dict[str, DetectionIndex]]",
    source: str,
    output: str,
    images: str,
    skip_broken: bool,
) -> None:
    """Convert a source of boxes to COCO json."""
    from visionloop.bin.converters.coco_json import BOXES  # here: `--help` must be quick
    from visionloop.bin.converters.conversion import convert

    convert(kind, read, BOXES, source, output, images=images, skip_broken=skip_broken)


def main() -> None:
    """Run the command line."""
    run_commands(command)


if __name__ == "__main__":
    main()
