"""`/datasets` and `/folders`: data sets below the roots."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from visionloop.bin.web.api.parameters import Services
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.security.roots import resolve_below
from visionloop.bin.web.tables.data_sets import Budget, DataSet
from visionloop.bin.web.tables.folders import (
    ENTRIES_OF_ONE,
    SECONDS_OF_ONE,
    Listing,
    list_folder,
    search,
)
from visionloop.bin.web.tables.layouts import recognise
from visionloop.datasets.io.names import is_unicode

router = APIRouter(tags=["datasets"])


class DataSetRow(BaseModel):
    """A folder in the layout of a task. Images are counted, not read: `check` reads them."""

    path: str
    name: str
    task_types: list[str]
    layout: str = Field(
        description="class_folders, coco, coco_panoptic, yolo, masks, masks_instances, hr or hr_lr"
    )
    images: int
    splits: dict[str, int] = Field(description="images of each split")
    classes: int | None = Field(description="null: without classes, or not counted")
    complete: bool = Field(description="false: there are at least as many images")
    problem: str | None = Field(description="no_validation, wrong_layout or null")
    warning: str | None = Field(description="the problem in one line")

    @classmethod
    def of(cls, data_set: DataSet) -> "DataSetRow":
        return cls(
            path=str(data_set.path),
            name=data_set.path.name,
            task_types=[data_set.task_type],
            layout=data_set.layout,
            images=sum(data_set.images.values()),
            splits=dict(data_set.images),
            classes=data_set.classes,
            complete=data_set.is_complete,
            problem=data_set.problem,
            warning=data_set.why,
        )


class DataSets(BaseModel):
    """Data sets below the roots. complete: false where the search has reached a limit."""

    datasets: list[DataSetRow]
    complete: bool


class FolderRow(BaseModel):
    """A folder to open, and the tasks that it has data for."""

    name: str
    path: str
    task_types: list[str]


class Folder(BaseModel):
    """A folder below the roots."""

    path: str = Field(description="empty: the list of the roots")
    parent: str | None = Field(description="folder above, empty for the list of roots, or null")
    folders: list[FolderRow]
    recognised: list[DataSetRow] = Field(description="data sets that the folder itself is")
    complete: bool = Field(description="false: there are more folders than are listed")


@router.get("/datasets")
def datasets(studio: Services) -> DataSets:
    """Search for data sets below the roots, for a few seconds at most."""
    found = search(studio.config.data)
    rows = [DataSetRow.of(data_set) for data_set in found.data_sets]
    return DataSets(datasets=rows, complete=found.is_complete)


@router.get("/folders")
def folders(
    studio: Services,
    path: Annotated[str, Query(max_length=4096, description="default: the list of roots")] = "",
) -> Folder:
    """List the folders in a folder, to choose a data set."""
    roots = studio.config.data
    if not path:
        rows = Listing([(root, []) for root in roots], is_complete=True)
        return _folder("", None, rows, [])
    folder = resolve_below(path, roots, "path")
    if not folder.is_dir():
        raise Problem(404, "not_found", "path: no such folder", field="path")
    if not is_unicode(str(folder)):  # a link leads to it: JSON has no text for its name
        raise Problem(422, "bad_input", "path: expected a name in UTF-8", field="path")
    root = next(root for root in roots if folder.is_relative_to(root))
    recognised = recognise(folder, Budget(ENTRIES_OF_ONE, SECONDS_OF_ONE))
    parent = "" if folder == root else str(folder.parent)
    return _folder(str(folder), parent, list_folder(folder, root), recognised)


def _folder(path: str, parent: str | None, listing: Listing, recognised: list[DataSet]) -> Folder:
    return Folder(
        path=path,
        parent=parent,
        folders=[_row(folder, data_sets) for folder, data_sets in listing.folders],
        recognised=[DataSetRow.of(data_set) for data_set in recognised],
        complete=listing.is_complete,
    )


def _row(folder: Path, data_sets: list[DataSet]) -> FolderRow:
    task_types = [data_set.task_type for data_set in data_sets]
    return FolderRow(name=folder.name, path=str(folder), task_types=task_types)
