"""Turn annotations in other forms into the COCO json that detection reads, with the pictures beside it.

    bin/convert.py voc VOCdevkit/VOC2007 data/voc
    bin/convert.py yolo football/ data/football --pictures link
    bin/convert.py imagefolder flowers/ data/flowers

OUTPUT then holds train.json, val.json and test.json, as far as the source has them, the pictures in folders of the same names, and
convert.json, which says where all came from and what was left out. With `--pictures none` those folders are links to the folders of the
source, so that pictures are found under the names in the json as long as nobody moves the source.
"""

from functools import partial

import click

from visionloop.bin.commands.group import run_commands
from visionloop.bin.commands.options import traceback_option

HOW = ["copy", "link", "none"]


@click.group("convert", help="Turn annotations in other forms into COCO json.", context_settings={"max_content_width": 120})
def command():
    pass


def conversion(name, help):
    """A command `name SOURCE OUTPUT` with the options that all conversions share."""

    def decorate(function):
        for option in (
            traceback_option,
            click.option("--skip-broken", is_flag=True, help="leave out what is broken, and say so"),
            click.option(
                "--pictures", type=click.Choice(HOW), default="copy", show_default=True,
                help="in OUTPUT: copies; a symbolic link for each; or none, and a link to the source's folder for each split",
            ),
            click.argument("output"),  # applied from the last to the first
            click.argument("source"),
        ):
            function = option(function)
        return command.command(name, help=f"{help} OUTPUT must be absent, empty, or an earlier conversion, which it replaces.")(function)

    return decorate


@conversion("voc", "Pascal VOC: Annotations/*.xml, JPEGImages/, ImageSets/Main/*.txt. Without lists all is train.")
@click.option(
    "--difficult", type=click.Choice(["keep", "crowd", "drop"]), default="keep", show_default=True,
    help="objects marked difficult: like others; as crowd, so that finding or missing them does not count; or not at all",
)
@click.option(
    "--val-split", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True,
    help="share of train that becomes val, where there is no val",
)
def voc(difficult, val_split, **options):
    from visionloop.bin.converters.voc import read_voc

    _convert("voc", partial(read_voc, difficult=difficult, val_split=val_split), **options)


@conversion("yolo", "YOLO: data.yaml, images/ and labels/.")
def yolo(**options):
    from visionloop.bin.converters.yolo import read_yolo_splits

    _convert("yolo", read_yolo_splits, **options)


@conversion("imagefolder", "Folders by class: train/<class>/*.jpg. One box around each whole picture.")
def imagefolder(**options):
    from visionloop.bin.converters.imagefolder import read_image_folder

    _convert("imagefolder", read_image_folder, **options)


def _convert(kind, read, **options):
    from visionloop.bin.converters.conversion import convert  # here: `--help` must be quick

    convert(kind, read, **options)


def main():
    run_commands(command)


if __name__ == "__main__":
    main()
