"""Scenes of instance and panoptic segmentation: few large shapes, each an object of its own.

A scene is drawn like those of semantic segmentation. Six of every 16 scenes have what code for real
data must handle, see CASES: objects of one class that touch, an object in two parts, objects that
overlap, a crowd, an object of four pixels, no object at all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.synthetic.scenes import Scene, random_grid, shaded_patch
from visionloop.datasets.synthetic.segmentation import (
    BAND,
    BAND_SHARE,
    GROUND,
    HUES,
    IGNORED,
    MAX_ROTATION,
    add_band,
    random_border,
)
from visionloop.datasets.synthetic.shapes import OUTLINES

SPLITS = {"train": 300, "val": 60}  # images
SIDES = (96, 160)  # shortest and longest side in pixels, height and width drawn independently
SHAPES = (1, 3)  # fewest and most shapes of a scene without a case
# of the circumscribed circle, relative to the shorter side; the smaller one where there is no room
RADII, SMALL_RADIUS = (0.24, 0.32), 0.2
# Number of the scene in each group of PERIOD -> what is in it; the first ones, which are often
# looked at, are plain.
PERIOD = 16
CASES = {10: "touching", 11: "cut", 12: "overlap", 13: "crowd", 14: "speck", 15: "empty"}
# the radii of a pair of objects, relative to the shorter side, and their distance in radii
PAIR_RADIUS, TOUCHING, OVERLAPPING = 0.2, 1.35, 0.9
# a cross over a square: the radius of the cross, and that of the square and its distance below the
# center of the cross relative to it, so that an upright arm divides the square
CROSS_RADIUS, SQUARE_RADIUS, SQUARE_OFFSET = 0.42, 0.5, 0.58
CROWD_GRID, CROWD_MEMBER = 3, 0.08  # members along a side; their radius
SPECK_RADIUS = 2**0.5  # pixels: a square of two by two
SPECK_ROOM = 0.06  # relative to the shorter side, free of other shapes
# Ids with gaps, as in COCO: code that uses an id as a label fails at once.
CATEGORY_IDS = dict(zip((*sorted(OUTLINES), "ground", "band"), (1, 2, 3, 5, 8, 9), strict=True))
FIRST_OBJECT = BAND + 1  # in SegmentsScene.ids


@dataclass(frozen=True, eq=False)
class SceneObject:
    """An object, or a crowd of objects of one kind, in a scene.

    mask: bool [H, W], its pixels as an instance: those that are visible, in the case "overlap"
    those that another object covers too.
    """

    kind: str
    mask: NDArray[np.bool_]
    is_crowd: bool


@dataclass(frozen=True, eq=False)
class SegmentsScene:
    """An image and its segments.

    image: uint8 [H, W, 3]; ids: uint8 [H, W], GROUND, BAND, FIRST_OBJECT + k for a visible pixel of
    objects[k], or IGNORED.
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]


def draw_scene(
    generator: np.random.Generator, number: int, sides: tuple[int, int] = SIDES
) -> SegmentsScene:
    """Draw the scene with a number, which decides on the case alone."""
    height, width = (int(side) for side in generator.integers(*sides, size=2, endpoint=True))
    ground = shaded_patch(generator, height, width)
    ids = np.full((height, width), GROUND, dtype=np.uint8)
    if generator.random() < BAND_SHARE:
        add_band(generator, ground, ids)
    drawing = _Drawing(generator, Scene(ground), ids)
    case = CASES.get(number % PERIOD)
    if case is None:
        for _ in range(generator.integers(*SHAPES, endpoint=True)):
            drawing.add_shape()
    elif case != "empty":
        _ADD_CASE[case](drawing)  # first: there is room for it
        drawing.add_shape()
    return drawing.finish()


def bounding_box(mask: NDArray[np.bool_]) -> list[int]:
    """Return [left, top, width, height] of the pixels of a mask, bool [H, W]; it has some."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]


class _Drawing:
    """A scene, the ids of its pixels and its objects, while it is drawn."""

    def __init__(
        self, generator: np.random.Generator, scene: Scene, ids: NDArray[np.uint8]
    ) -> None:
        self.generator, self.scene, self.ids = generator, scene, ids
        self.void = np.zeros(ids.shape, dtype=np.bool_)
        self.kinds: list[str] = []
        self.crowds: set[int] = set()  # values in ids
        self.whole: dict[int, NDArray[np.bool_]] = {}  # value in ids -> pixels of the object

    def finish(self) -> SegmentsScene:
        """Return the scene."""
        objects = tuple(
            SceneObject(kind, self.whole.get(value, self.ids == value), value in self.crowds)
            for value, kind in enumerate(self.kinds, start=FIRST_OBJECT)
        )
        ids = np.where(self.void & (self.ids < FIRST_OBJECT), np.uint8(IGNORED), self.ids)
        return SegmentsScene(self.scene.image(), ids, objects)

    def add_shape(self) -> None:
        """Draw a shape of a random kind and size, smaller or not at all where room is short."""
        kind = self.choose(sorted(OUTLINES))
        for share in (self.generator.uniform(*RADII), SMALL_RADIUS):
            radius = share * self.scene.shorter
            center_xy = self.scene.find_room(self.generator, radius)
            if center_xy is not None:
                inside = self.paint(kind, center_xy, radius, self.new_object(kind))
                self.void |= random_border(self.generator, inside)
                return

    def add_touching(self) -> None:
        """Draw two shapes of one kind of which the second covers an edge of the first."""
        kind = self.choose(["ring", "square"])  # wide from every side
        self.add_pair([kind, kind], TOUCHING)

    def add_overlapping(self) -> None:
        """Draw one shape over another, which as an instance keeps the pixels below."""
        first = FIRST_OBJECT + len(self.kinds)
        kinds = [self.choose(["square", "triangle"]) for _ in range(2)]
        self.whole[first] = self.add_pair(kinds, OVERLAPPING)

    def add_pair(self, kinds: list[str], distance: float) -> NDArray[np.bool_]:
        """Draw two shapes at a distance in radii; return the pixels of the first, bool [H, W]."""
        radius = PAIR_RADIUS * self.scene.shorter
        center_xy = self.find_room(radius * (1 + distance / 2))
        angle = self.generator.uniform(0, 2 * np.pi)
        offset_xy = radius * distance / 2 * np.array([np.cos(angle), np.sin(angle)])
        first = self.paint(kinds[0], center_xy - offset_xy, radius, self.new_object(kinds[0]))
        self.paint(kinds[1], center_xy + offset_xy, radius, self.new_object(kinds[1]))
        return first

    def add_cut(self) -> None:
        """Draw a square and a cross over it whose lower arm cuts the square in two."""
        radius = CROSS_RADIUS * self.scene.shorter
        center_xy = self.find_room(radius)
        below = center_xy + np.array([0, SQUARE_OFFSET * radius])
        square, cross = self.new_object("square"), self.new_object("cross")
        self.paint("square", below, SQUARE_RADIUS * radius, square, max_rotation=0)
        self.paint("cross", center_xy, radius, cross, max_rotation=0)

    def add_crowd(self) -> None:
        """Draw a grid of small shapes of one kind, some cells empty, as one crowd."""
        kind = self.choose(sorted(OUTLINES))
        radius = CROWD_MEMBER * self.scene.shorter
        center_xy = self.find_room(radius * CROWD_GRID * 2**0.5)
        value = self.new_object(kind)
        self.crowds.add(value)
        for offset_xy in random_grid(self.generator, CROWD_GRID, 2 * radius):
            self.paint(kind, center_xy + offset_xy, radius, value)

    def add_speck(self) -> None:
        """Draw a square of four pixels."""
        center_xy = np.round(self.find_room(SPECK_ROOM * self.scene.shorter))
        self.paint("square", center_xy, SPECK_RADIUS, self.new_object("square"), max_rotation=0)

    def choose(self, kinds: list[str]) -> str:
        """Return one of the kinds at random."""
        return kinds[self.generator.integers(len(kinds))]

    def find_room(self, radius: float) -> NDArray[np.float64]:
        """Return the center (x, y) of a circle in the scene, in which nothing was drawn yet."""
        center_xy = self.scene.find_room(self.generator, radius)
        assert center_xy is not None
        return center_xy

    def new_object(self, kind: str) -> int:
        """Register an object; return its value in ids."""
        self.kinds.append(kind)
        return FIRST_OBJECT + len(self.kinds) - 1

    def paint(
        self,
        kind: str,
        center_xy: NDArray[np.float64],
        radius: float,
        value: int,
        max_rotation: float = MAX_ROTATION,
    ) -> NDArray[np.bool_]:
        """Draw a shape at most `max_rotation` radians from upright, over what is there.

        value: of its pixels in ids. Returns the pixels, bool [H, W].
        """
        window, cover = self.scene.paint(
            self.generator, kind, center_xy, radius, max_rotation, HUES[kind]
        )
        inside = np.zeros(self.ids.shape, dtype=np.bool_)
        inside[window] = cover >= 0.5
        self.ids[inside] = value
        return inside


_ADD_CASE: dict[str, Callable[[_Drawing], None]] = {
    "touching": _Drawing.add_touching,
    "cut": _Drawing.add_cut,
    "overlap": _Drawing.add_overlapping,
    "crowd": _Drawing.add_crowd,
    "speck": _Drawing.add_speck,
}
