"""Where a new version of a model is written: beside, and renamed when it is whole.

Every writer of a model goes through here, before it begins to work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from battery_sorting.core.beside import check_writable, folder_beside, refuse_occupied
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.names import name_problem
from battery_sorting.vision.card import CARD_FILE, WEIGHTS_FILE, refuse_twins
from battery_sorting.vision.cell_finder import FINDER_FILE
from battery_sorting.vision.defect_card import read_any_card
from battery_sorting.vision.gallery import GALLERY_FILE
from battery_sorting.vision.open_set import JUNK_FILE, OPEN_SET_FILE
from battery_sorting.vision.reading import READER_FILE
from battery_sorting.vision.training.model_card import CARD_TEXT

TRAINING = "training"
"""Folder with the log of a training in two stages."""
_OURS = frozenset(
    {
        CARD_FILE,
        CARD_TEXT,
        FINDER_FILE,
        GALLERY_FILE,
        JUNK_FILE,
        OPEN_SET_FILE,
        READER_FILE,
        TRAINING,
        "views.npz",
        WEIGHTS_FILE,
    }
)


@contextlib.contextmanager
def new_model(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to write a model to, which becomes ``out`` when the ``with`` ends well.

    Whatever ends it before, Ctrl-C or a full disk, leaves ``out`` as it was.

    Args:
        out: Folder NAME/VERSION.
        overwrite: Whether a version that is there may be replaced.

    Raises:
        ConfigurationError: It is there and may not be replaced, or holds other files than a model's; NAME or
            VERSION is no name; it can't be written.
    """
    name_and_version(out)
    with folder_beside(out, _replaceable(out) if overwrite else None) as folder:
        yield folder


def refuse_unfit(out: Path, overwrite: bool = False) -> None:
    """Raise `ConfigurationError` where `new_model` would, before the work that goes before that."""
    name_and_version(out)
    refuse_occupied(out, _replaceable(out) if overwrite else None)
    check_writable(out.absolute().parent)


def name_and_version(out: Path) -> tuple[str, str]:
    """Name and version of the model in the folder ``out``, as its card has them.

    Raises:
        ConfigurationError: One is no name.
    """
    place = out.absolute()
    for text in (place.parent.name, place.name):
        problem = name_problem(text)
        if problem:
            raise ConfigurationError("--out", [f"{out}: {problem}; give a folder NAME/VERSION"])
    return place.parent.name, place.name


def check_labels(labels: Iterable[str], source: Path) -> None:
    """See that a card can have these labels, which are those of folders of ``source``, before anything is learnt.

    Raises:
        ConfigurationError: One is no name, or two are the same to a person or to some file system.
    """
    labels = list(labels)
    problems = [f"folder {label!r}: {name_problem(label)}; rename it" for label in labels if name_problem(label)]
    try:
        refuse_twins(labels)
    except ValueError:
        problems.append(f"two of its folders have one name but for its spelling: {', '.join(sorted(labels))}")
    if problems:
        raise ConfigurationError(str(source), problems)


def _replaceable(out: Path) -> frozenset[str]:
    """Files and folders that a model has; those that its card names are among them."""
    try:
        return _OURS | set(read_any_card(out).files)
    except ModelError:
        return _OURS
