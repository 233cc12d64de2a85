"""Classes of a COCO json: its categories without those that only group others."""

from collections.abc import Collection, Hashable, Sequence
from typing import TypeAlias

from visionloop.datasets.detection.problems import Report
from visionloop.datasets.io.json_columns import (
    JsonObject,
    JsonValues,
    column,
    is_text,
    repeated,
    show,
    whole_numbers,
    wrong_id,
)
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.io.names import class_name, composed

# (class names, ids) in order of label
Categories: TypeAlias = tuple[tuple[str, ...], tuple[int | str | None, ...]]


def read_categories(
    entries: Sequence[JsonObject],
    annotated: Collection[Hashable],
    classes: Sequence[str] | None,
    report: Report,
) -> Categories | None:
    """Return (names, ids) in order of label, or None.

    A category without annotations is no class when another one has its name, or names it as its
    supercategory: Roboflow puts such a root above the classes.

    Args:
        entries: of the section.
        annotated: the category ids of the annotations.
        classes: names of the training split, whose order the result has.
        report: receives the problems.
    """
    ids = read_ids(entries, "category", report)
    if not ids:
        return None
    raw_names = [entry.get("name") for entry in entries]
    name_errors = [
        (f"category {key!r}", f"name is {show(name)}")
        for key, name in zip(ids, raw_names, strict=True)
        if not is_text(name) or not class_name(str(name))
    ]
    if name_errors:
        report.error_each(name_errors)
        return None
    names = [class_name(str(name)) for name in raw_names]
    unused = _unused_roots(names, ids, column(entries, "supercategory"), annotated)
    if unused:
        roots = shorten([f"{names[k]!r} (id {ids[k]!r})" for k in unused])
        report.note(f"{len(unused)} categories without annotations are no classes: {roots}")
    rows = [k for k in range(len(ids)) if k not in unused]
    first = {names[k]: ids[k] for k in reversed(rows)}
    repeats = [rows[k] for k in repeated([names[k] for k in rows])]
    if repeats:  # names that are no classes for other splits either
        report.error_each(
            [
                (
                    f"categories {first[names[k]]!r} and {ids[k]!r}",
                    f"both have the name {names[k]!r}; rename one, or join them",
                )
                for k in repeats
            ]
        )
        return None
    rows.sort(key=ids.__getitem__)
    return match_classes(
        tuple(names[k] for k in rows), tuple(ids[k] for k in rows), classes, report
    )


def _unused_roots(
    names: Sequence[str],
    ids: JsonValues,
    supercategories: JsonValues,
    annotated: Collection[Hashable],
) -> set[int]:
    """Return the positions of categories that have no annotations and only group others."""
    unused: set[int] = set()
    for k, name in enumerate(names):
        if ids[k] in annotated:
            continue
        others = [i for i in range(len(names)) if i != k and i not in unused]
        if any(name in (names[i], supercategories[i]) for i in others):
            unused.add(k)
    return unused


def match_classes(
    names: tuple[str, ...],
    ids: tuple[int | str, ...],
    classes: Sequence[str] | None,
    report: Report,
) -> Categories:
    """Return (names, ids) of a split in the order of the training split's classes.

    A class that the split does not have gets the id None.
    """
    if classes is None:
        return names, ids
    why = f"not one of the {len(classes)} known classes ({shorten(classes)})"
    known = {composed(name) for name in classes}
    report.error_each([(f"category {name!r}", why) for name in names if name not in known])
    id_of = dict(zip(names, ids, strict=True))
    return tuple(classes), tuple(id_of.get(composed(name)) for name in classes)


def read_ids(entries: Sequence[JsonObject], kind: str, report: Report) -> JsonValues | None:
    """Return the ids of a section, or None when they are wrong or of different types.

    Repeated ids are reported.
    """
    ids = whole_numbers(column(entries, "id"))
    errors = [
        (f"{kind} at position {position}", why)
        for position, key in enumerate(ids)
        if (why := wrong_id(key))
    ]
    if errors:
        report.error_each(errors)
        return None
    if len(set(map(type, ids))) > 1:
        texts = [repr(key) for key in ids if isinstance(key, str)]
        report.error(f"some {kind} ids are numbers and others text ({shorten(texts, 3)})")
        return None
    report.error_each(
        [
            (f"{kind} {ids[k]!r}", f"the id is there twice, again at position {k}")
            for k in repeated(ids)
        ]
    )
    return ids
