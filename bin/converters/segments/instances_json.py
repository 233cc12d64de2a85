"""Writer of COCO's instances json: one annotation for each object."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pycocotools import mask as coco_mask
from tqdm import tqdm

from visionloop.bin.converters.coco_json import write_list
from visionloop.bin.converters.conversion import ConversionReport, OutputFormat
from visionloop.bin.converters.outlines import Region, area
from visionloop.bin.converters.segments.split import SegmentSplit, count_segments, read_regions
from visionloop.datasets.io.layout import shorten

VOID_NOTE = "is ignored, which instances cannot say; left out"


def write_instances(
    splits: dict[str, SegmentSplit], folder: Path, report: ConversionReport
) -> dict[str, SegmentSplit]:
    """Write `<split>.json` for each split.

    Returns:
        {split: SegmentSplit} of the images that could be read, with the things alone as classes.
    """
    written: dict[str, SegmentSplit] = {}
    total = sum(map(len, splits.values()))
    with tqdm(total=total, desc="objects", unit="img", disable=None, leave=False) as progress:
        for split, index in splits.items():
            rows = _Rows(index, report, progress.update)
            with open(folder / f"{split}.json", "w", encoding="ascii") as file:
                file.write('{"categories": ')
                write_list(file, _categories(index))
                # images are known when the last one is read: they come last
                file.write(',\n"annotations": ')
                write_list(file, rows.annotations())
                file.write(',\n"images": ')
                write_list(file, rows.images)
                file.write("}\n")
            pairs = list(zip(index.classes, index.things, strict=True))
            if stuff := [name for name, thing in pairs if not thing]:
                why = f"{len(stuff)} classes are stuff, which has no objects, and are left out"
                report.add_note(f"{split}.json", f"{why}: {shorten(stuff)}")
            things = tuple(name for name, thing in pairs if thing)
            written[split] = replace(
                index.subset(rows.converted), classes=things, segments=rows.count
            )
    return written


def _categories(index: SegmentSplit) -> Iterator[Mapping[str, object]]:
    """Yield the categories of the things in order of label."""
    for key, name, thing in zip(index.category_ids, index.classes, index.things, strict=True):
        if thing:
            yield {"id": key, "name": name}


@dataclass
class _Rows:
    """The rows of a json.

    Attributes:
        index: the images.
        report: receives what is left out.
        advance: called before each image.
        images: rows of the images that could be read, once the annotations are written.
        converted: their positions in the index.
        count: number of annotations.
    """

    index: SegmentSplit
    report: ConversionReport
    advance: Callable[[], object]
    images: list[Mapping[str, object]] = field(default_factory=list)
    converted: list[int] = field(default_factory=list)
    count: int = 0

    def annotations(self) -> Iterator[Mapping[str, object]]:
        """Yield the annotations, image by image."""
        for i in range(len(self.index)):
            self.advance()
            read = read_regions(self.index, i, self.report)
            if read is None:
                continue
            (height, width), regions = read
            image_id = len(self.images) + 1
            self.converted.append(i)
            self.images.append(
                {
                    "id": image_id,
                    "file_name": self.index.name(i),
                    "width": width,
                    "height": height,
                }
            )
            for region in regions:
                if region.label is None:
                    self.report.add_note(region.place, VOID_NOTE)
                elif self.index.things[region.label]:
                    self.count += 1
                    key = self.index.category_ids[region.label]
                    ids = {"id": self.count, "image_id": image_id, "category_id": key}
                    yield ids | _outline(region)


def _outline(region: Region) -> dict[str, object]:
    """Return the part of an annotation that a region alone determines.

    Polygons remain polygons, except of crowds, which COCO has as run lengths only.
    """
    segmentation: object = region.polygons
    if region.polygons is None or region.crowd:
        counts = region.outline["counts"].decode("ascii")
        segmentation = {"size": region.outline["size"], "counts": counts}
    return {
        "segmentation": segmentation,
        "area": area(region.outline),
        "bbox": coco_mask.toBbox(region.outline).tolist(),
        "iscrowd": int(region.crowd),
    }


INSTANCES = OutputFormat(
    write_instances, count_segments, one="object", many="objects", task="instance_segmentation"
)
