"""Images with their segments: layers, ground truth and samples."""

import json
import pickle
import random
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from segments_files import (
    annotation,
    decode,
    encode,
    masks_of,
    rectangle,
    small_instances,
    small_panoptic,
    write_ids,
    write_images,
    write_instances,
    write_panoptic,
)

from visionloop.datasets.io.images import UnreadableImage
from visionloop.datasets.segmentation.masks import UnreadableMask
from visionloop.datasets.segments.coco_instances import inspect_instances
from visionloop.datasets.segments.dataset import SegmentsDataset
from visionloop.datasets.segments.id_maps import count_pixels, read_ids
from visionloop.datasets.segments.layers import NO_SEGMENT, layers_of_outlines
from visionloop.datasets.segments.layout import require_segments_split
from visionloop.datasets.segments.reading import read_segments
from visionloop.datasets.segments.transforms import SegmentsEvalPreset, SegmentsTrainPreset


def rectangle_masks(number, side):
    """`number` squares of 2 x 2 px that do not touch, bool [number, side, side]."""
    masks = np.zeros((number, side, side), dtype=bool)
    for k in range(number):
        top, left = divmod(k, side // 3)
        masks[k, 3 * top : 3 * top + 2, 3 * left : 3 * left + 2] = True
    return masks


def read(folder, kind, i=0):
    return read_segments(require_segments_split(folder, "train", kind), i)


def test_overlapping_instances_keep_all_of_their_pixels(tmp_path):
    write_instances(tmp_path)
    image, layers, segments, ignored, truth = read(tmp_path, "instance")
    assert image.shape == (3, 30, 40) and layers.shape == (2, 30, 40)
    assert layers.is_contiguous() and ignored.is_contiguous()
    assert segments[:, 2].tolist() == [0, 1]
    masks, true_masks = masks_of(layers, segments), decode(truth["rles"], 30, 40)
    assert (masks[0] & masks[1]).sum() > 0
    assert np.array_equal(masks.numpy(), true_masks[:2])
    assert (truth["labels"].tolist(), truth["crowd"].tolist()) == ([0, 1, 1], [0, 0, 1])
    # the first has no area in the file
    assert truth["areas"].tolist() == [true_masks[0].sum(), 145, 100]
    assert np.array_equal(ignored.numpy() == 1, true_masks[2])


def test_encodings_of_both_kinds_become_masks(tmp_path):
    write_instances(tmp_path)
    _, layers, segments, ignored, truth = read(tmp_path, "instance", 1)
    assert layers.shape == (1, 24, 20) and not ignored.any()
    masks = masks_of(layers, segments)
    assert masks[0, 2:10, 3:9].all() and masks[1, 12:20, 4:18].all()
    assert masks.sum(dim=(1, 2)).tolist() == truth["areas"].tolist() == [48, 112]


def test_an_image_without_segments_has_one_empty_layer(tmp_path):
    write_instances(tmp_path)
    _, layers, segments, ignored, truth = read(tmp_path, "instance", 2)
    assert layers.shape == (1, 16, 16) and (layers == NO_SEGMENT).all() and not ignored.any()
    assert segments.shape == (0, 3) and truth["rles"] == [] and truth["labels"].shape == (0,)


@pytest.mark.parametrize("number", [0, 1, 254, 255, 256, 300])
def test_any_number_of_instances_fits_into_layers(tmp_path, number):
    masks = rectangle_masks(number, 60)
    content = small_instances()
    content["images"] = [{"id": 1, "file_name": "a.png", "width": 60, "height": 60}]
    content["annotations"] = [
        annotation(k + 1, 1, (2, 9)[k % 2], encode(mask)) for k, mask in enumerate(masks)
    ]
    write_instances(tmp_path, content)
    _, layers, segments, _, truth = read(tmp_path, "instance")
    assert len(layers) == max(1, -(-number // 255)) and len(segments) == number
    assert np.array_equal(masks_of(layers, segments).numpy(), masks)
    assert np.array_equal(decode(truth["rles"], 60, 60), masks)


@pytest.mark.parametrize("number", [0, 1, 254, 255, 256, 300])
@pytest.mark.parametrize("kind", ["instance", "panoptic"])
def test_any_number_of_panoptic_segments_fits_into_layers(tmp_path, kind, number):
    masks = rectangle_masks(number, 60)
    ids = (masks * np.arange(1, number + 1)[:, None, None] * 1000).sum(axis=0).astype(int)
    content, _ = small_panoptic()
    content["images"] = [{"id": 1, "file_name": "a.png", "width": 60, "height": 60}]
    infos = [{"id": 1000 * (k + 1), "category_id": 4} for k in range(number)]
    content["annotations"] = [{"image_id": 1, "file_name": "a.png", "segments_info": infos}]
    write_panoptic(tmp_path, content, {"a.png": ids})
    _, layers, segments, ignored, truth = read(tmp_path, kind)
    assert len(layers) == max(1, -(-number // 255))
    assert np.array_equal(masks_of(layers, segments).numpy(), masks)
    assert truth["areas"].tolist() == [4] * number
    if kind == "panoptic":
        assert truth["segment_map"].dtype == torch.int32
        assert np.array_equal(truth["segment_map"].numpy() * 1000, ids)
        assert np.array_equal(ignored.numpy() == 1, ids == 0)


def test_panoptic_segments_crowds_and_void_are_those_of_the_file(tmp_path):
    _, maps = small_panoptic()
    write_panoptic(tmp_path)
    _, layers, segments, ignored, truth = read(tmp_path, "panoptic")
    ids = maps["a.png"]
    assert segments[:, 2].tolist() == [0, 1, 0] and len(layers) == 1
    expected = np.stack([ids == key for key in (300, 70_000, 5)])
    assert np.array_equal(masks_of(layers, segments).numpy(), expected)
    assert np.array_equal(ignored.numpy() == 1, (ids == 0) | (ids == 16_000_000))
    assert truth["labels"].tolist() == [0, 1, 0, 0] and truth["crowd"].tolist() == [0, 0, 1, 0]
    for number, key in enumerate((300, 70_000, 16_000_000, 5), 1):
        assert np.array_equal(truth["segment_map"].numpy() == number, ids == key)
        assert truth["areas"][number - 1] == (ids == key).sum()


def test_stuff_is_background_of_an_instance_task_and_void_is_ignored(tmp_path):
    _, maps = small_panoptic()
    write_panoptic(tmp_path)
    _, layers, segments, ignored, truth = read(tmp_path, "instance")
    ids = maps["a.png"]
    assert np.array_equal(
        masks_of(layers, segments).numpy(), np.stack([ids == key for key in (300, 5)])
    )
    assert np.array_equal(ignored.numpy() == 1, (ids == 0) | (ids == 16_000_000))
    expected = np.stack([ids == key for key in (300, 16_000_000, 5)])
    assert np.array_equal(decode(truth["rles"], 30, 40), expected)
    assert truth["crowd"].tolist() == [False, True, False]


def test_a_segment_without_pixels_is_left_out(tmp_path):
    content, maps = small_panoptic()
    content["annotations"][0]["segments_info"].insert(0, {"id": 9, "category_id": 4})
    write_panoptic(tmp_path, content, maps)
    with_entry = read(tmp_path, "panoptic")
    ids = maps["a.png"]
    pixels = count_pixels(ids, np.array([300, 9, 5, 2**24 - 1]))
    assert pixels.tolist() == [(ids == 300).sum(), 0, (ids == 5).sum(), 0]
    write_panoptic(tmp_path / "without")
    without = read(tmp_path / "without", "panoptic")
    assert all(map(torch.equal, with_entry[:4], without[:4]))
    assert torch.equal(with_entry[4]["segment_map"], without[4]["segment_map"])


def test_an_outline_without_pixels_is_no_target(tmp_path):
    content = small_instances()
    content["annotations"] = [
        annotation(1, 7, 2, [rectangle(3, 3, 0, 0)], area=5.0),
        annotation(2, 7, 2, [rectangle(100, 100, 9, 9)], iscrowd=1),
        annotation(3, 7, 9, [rectangle(1, 1, 4, 4)]),
    ]
    write_instances(tmp_path, content)
    _, layers, segments, ignored, truth = read(tmp_path, "instance")
    assert segments.tolist() == [[0, 0, 1]] and (layers == 0).sum() == 16
    assert not ignored.any() and len(truth["rles"]) == 3


def write_16_bit_rgb(path, height, width):
    """A PNG with 16 bits a channel, which Pillow would read as 8."""
    rows = (b"\0" + bytes(6 * width)) * height
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_bytes(b"GIF89a" + bytes(99)), "no PNG, other formats"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), ""),
        (lambda path: write_ids(path, np.zeros((30, 41), dtype=int)), "is 30 x 41 (height"),
        (lambda path: write_ids(path, np.full((30, 40), 77)), "holds 1 ids without an entry"),
        (lambda path: Image.new("L", (40, 30)).save(path), "has gray pixels of 8 bits"),
        (lambda path: write_16_bit_rgb(path, 30, 40), "has RGB pixels of 16 bits, expected 8-bit"),
        (lambda path: Image.new("P", (40, 30)).save(path), "has palette pixels of"),
        (lambda path: Image.new("I;16", (40, 30)).save(path), "has gray pixels of 16 bits"),
    ],
)
def test_each_broken_panoptic_png_is_one_line_with_its_path(tmp_path, write, why):
    write_panoptic(tmp_path)
    index = require_segments_split(tmp_path, "train", "panoptic")
    write(tmp_path / "panoptic_train" / "a.png")
    with pytest.raises(UnreadableMask) as caught:
        read_segments(index, 0)
    assert caught.value.path == str(tmp_path / "panoptic_train" / "a.png")
    assert caught.value.why.startswith(why) and "\n" not in caught.value.why


def test_alpha_of_a_panoptic_png_is_ignored(tmp_path):
    write_panoptic(tmp_path)
    path = tmp_path / "panoptic_train" / "a.png"
    ids = read_ids(path)
    Image.open(path).convert("RGBA").save(path)
    assert np.array_equal(read_ids(path), ids)


def test_an_image_of_another_size_than_annotated_is_named_with_both(tmp_path):
    write_instances(tmp_path)
    index = require_segments_split(tmp_path, "train", "instance")
    Image.new("RGB", (30, 40)).save(tmp_path / "train" / "a.png")
    with pytest.raises(UnreadableImage, match=r"is 40 x 30 .* the annotations say 30 x 40: width"):
        read_segments(index, 0)


def test_outlines_drawn_before_exif_turned_the_image_are_named_as_such(tmp_path):
    write_instances(tmp_path)
    index = require_segments_split(tmp_path, "train", "instance")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "train" / "a.png", exif=exif)
    with pytest.raises(UnreadableImage, match="the outlines were drawn before its EXIF orientati"):
        read_segments(index, 0)


def test_an_upright_image_fits_the_masks_of_its_turned_size(tmp_path):
    content, maps = small_panoptic()
    write_panoptic(tmp_path, content, maps)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((40, 30, 3), dtype=np.uint8)
    stored[0] = 200  # the first row of the file is the last column of the upright image
    Image.fromarray(stored).save(tmp_path / "train" / "a.png", exif=exif)
    image, layers, _, _, _ = read(tmp_path, "panoptic")
    assert image.shape[-2:] == layers.shape[-2:] == (30, 40)
    assert (image[:, :, -1] == 200).all() and (image[:, :, :-1] == 0).all()


def test_the_size_of_an_encoding_counts_where_the_json_gives_none(tmp_path):
    content = small_instances()
    for image in content["images"]:
        image["width"] = image["height"] = 0
    write_images(tmp_path / "train", small_instances())
    (tmp_path / "train.json").write_text(json.dumps(content))
    index = require_segments_split(tmp_path, "train", "instance")
    assert index.sizes_hw.tolist() == [[30, 40], [24, 20], [0, 0]]
    Image.new("RGB", (21, 24)).save(tmp_path / "train" / "b.png")
    with pytest.raises(UnreadableImage, match=r"is 24 x 21 .* the annotations say 24 x 20"):
        read_segments(index, 1)


def test_polygons_need_no_size_in_the_json(tmp_path):
    content = small_instances()
    content["annotations"] = [content["annotations"][1]]
    write_instances(tmp_path, content)
    expected = read(tmp_path, "instance")
    for image in content["images"]:
        del image["width"], image["height"]
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert all(map(torch.equal, read(tmp_path, "instance")[:4], expected[:4]))


def dataset(folder, kind, size=32, memory=0, training=False):
    index = require_segments_split(folder, "train", kind)
    preset = SegmentsTrainPreset(size=size) if training else SegmentsEvalPreset(size=size)
    return SegmentsDataset(index, preset, with_ground_truth=not training, memory=memory)


def shapes(sample):
    return {key: (value.dtype, tuple(value.shape)) for key, value in sample.items()}


def test_samples_have_the_shapes_that_collation_expects(tmp_path):
    write_instances(tmp_path)
    random.seed(0)
    sample = dataset(tmp_path, "instance", training=True)[0]
    expected = {
        "pixel_values": (torch.uint8, (3, 32, 32)),
        "layers": (torch.uint8, (2, 32, 32)),
        "segments": (torch.int64, (2, 3)),
        "ignored": (torch.uint8, (32, 32)),
    }
    assert shapes(sample) == expected
    sample = dataset(tmp_path, "instance")[0]
    assert sample.pop("ground_truth")["labels"].tolist() == [0, 1, 1]
    assert shapes(sample) == expected | {"size": (torch.int64, (2,))}
    assert sample["size"].tolist() == [30, 40]


@pytest.mark.parametrize("kind", ["instance", "panoptic"])
@pytest.mark.parametrize("training", [False, True])
def test_samples_are_the_same_whether_cached_or_not(tmp_path, kind, training):
    (write_instances if kind == "instance" else write_panoptic)(tmp_path)
    samples = []
    for memory in (0, 2**24):
        for source in (data := dataset(tmp_path, kind, memory=memory, training=training), data):
            for i in range(len(source)):
                random.seed(i)
                samples.append(source[i])
        used, expected = data.cached_bytes()
        assert (used > 0) == (memory > 0) and used == expected
    for one, other in zip(samples[: len(samples) // 2], samples[len(samples) // 2 :], strict=True):
        truth, other_truth = one.pop("ground_truth", {}), other.pop("ground_truth", {})
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert truth.get("rles") == other_truth.get("rles")
        for key in set(truth) - {"rles"}:
            assert np.array_equal(truth[key], other_truth[key])


def test_a_dataset_survives_pickling_and_a_subset_keeps_its_order(tmp_path):
    write_panoptic(tmp_path)
    whole = dataset(tmp_path, "panoptic", memory=2**20)
    copied, part = pickle.loads(pickle.dumps(whole)), whole.subset(np.array([1]))
    assert torch.equal(copied[0]["layers"], whole[0]["layers"])
    assert torch.equal(part[0]["layers"], whole[1]["layers"]) and len(part) == 1
    assert copied.fingerprint() == whole.fingerprint() != part.fingerprint()
    assert part.name(0) == whole.name(1) and part.classes == ("dog", "grass")


@pytest.mark.parametrize(
    ("name", "number", "pixels"), [("instance", 2082, None), ("panoptic", 2172, 0)]
)
def test_the_nuclei_are_read_in_both_kinds(real_data, name, number, pixels):
    index = require_segments_split(real_data("nuclei"), "train", name)
    assert len(index) == 90 and len(index.labels) == number and index.notes == ()
    for i in range(0, 90, 15):
        _, layers, segments, ignored, truth = read_segments(index, i)
        first, last = index.rows_of(i)
        assert len(segments) == last - first and len(layers) == 1
        areas = masks_of(layers, segments).sum(dim=(1, 2)).tolist()
        assert areas == index.areas[first:last].tolist() == truth["areas"].tolist()
        assert not ignored.any()


def test_layers_of_coco_hold_every_pixel_of_every_instance(real_data):
    folder = real_data("metrics-gold") / "coco-val2014-100"
    index, problems = inspect_instances(
        folder / "instances_val2014_100.json", [folder], need_images=False
    )
    assert [level for level, _, _ in problems] == ["note"]
    counts = Counter()
    for i in range(len(index)):
        height, width = index.sizes_hw[i].tolist()
        rows = slice(*index.rows_of(i))
        rles = [index.outlines.rle(k, height, width) for k in range(*index.rows_of(i))]
        layers, segments, crowds = layers_of_outlines(
            rles, index.labels[rows].astype(np.int64), index.crowd[rows], height, width
        )
        masks = coco_mask.decode(rles).transpose(2, 0, 1) == 1
        crowd = index.crowd[rows]
        assert np.array_equal(masks_of(layers, segments).numpy(), masks[~crowd])
        assert np.array_equal(crowds.numpy() == 1, masks[crowd].any(axis=0))
        counts[len(layers)] += 1
    assert counts == {1: 18, 2: 53, 3: 27, 4: 2}
