"""Findings on a folder of pictures as one HTML page: what the template check.html.j2 needs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import FrameError
from battery_sorting.report.page import page_environment, write_page
from battery_sorting.report.vision.case_page import picture_uri
from battery_sorting.vision.picture_folders import find_pictures
from battery_sorting.vision.pictures import picture_name, read_picture
from battery_sorting.vision.training.label_check import Alike, LabelCheck, Suspect

_THUMBNAIL = 180


def write_check(path: Path, folder: Path, found: LabelCheck) -> None:
    """Write a self-contained page, suspects beside what they look like; pictures are read from ``folder``.

    Raises:
        BatterySortingError: The file can't be written.
    """
    files = {picture_name(file): file for file in find_pictures(folder).files}
    sections = [
        (
            "Suspects: taken for another type by a model that has not seen them",
            [_suspect(files, suspect) for suspect in found.suspects],
        ),
        ("Copies", _groups(files, found.copies)),
        ("Nearly the same under different labels", _groups(files, found.across)),
        ("Near-duplicates of one type", _groups(files, found.near)),
    ]
    page = (
        page_environment()
        .get_template("check.html.j2")
        .render(
            title=f"Pictures in {folder.resolve().name}",
            about=f"{found.pictures} pictures of {len(found.types)} types",
            sections=[(title, rows) for title, rows in sections if rows],
            lists=[
                ("Unreadable", [f"{bad.file}: {bad.why}" for bad in found.unreadable]),
                ("Endings that lie", [f"{wrong.file} is {wrong.format}" for wrong in found.endings]),
                ("Left out, and remarks on folders", found.remarks),
                ("Types with a single picture", found.single),
                ("Types whose pictures all show the same", found.unjudged),
            ],
        )
    )
    write_page(path, page, "findings")


def _suspect(files: Mapping[str, Path], suspect: Suspect) -> dict[str, Any]:
    text = (
        f"{suspect.label} has {suspect.own:.0%}, {suspect.suggested} {suspect.confidence:.0%}; "
        f"right, the most similar picture of {suspect.suggested}"
    )
    return {"text": text, "pictures": _thumbnails(files, [suspect.file, suspect.like])}


def _groups(files: Mapping[str, Path], groups: Sequence[Alike]) -> list[dict[str, Any]]:
    return [
        {
            "text": f"{', '.join(sorted(set(group.labels)))}: cosine {group.cosine:.3f}",
            "pictures": _thumbnails(files, group.files),
        }
        for group in groups
    ]


def _thumbnails(files: Mapping[str, Path], names: Sequence[str]) -> list[dict[str, str]]:
    return [{"file": name, "uri": _uri(files.get(name))} for name in names]


def _uri(path: Path | None) -> str:
    try:
        return "" if path is None else picture_uri(read_picture(path), _THUMBNAIL)
    except FrameError:  # gone since it was checked
        return ""
