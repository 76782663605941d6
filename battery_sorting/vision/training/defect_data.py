"""Pictures to learn defects from, a folder per class; which of them belong together; and their features."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.vision.cell_finder import CellFinder
from battery_sorting.vision.deep_pictures import camera_bits
from battery_sorting.vision.engine import Engine, open_engine
from battery_sorting.vision.framing import Framing
from battery_sorting.vision.picture_folders import find_pictures
from battery_sorting.vision.pictures import clean_name, picture_name, read_picture
from battery_sorting.vision.training.backbone import weights_digest
from battery_sorting.vision.training.onnx_files import export_onnx
from battery_sorting.vision.training.progress import Progress, no_progress
from battery_sorting.vision.training.two_stage import ActivationCache

GOOD_NAMES = ("good", "free", "ok", "normal")
LOOKS_FILE = "looks.csv"
READING = 2
"""Changes with what is made of a file, so that cut-outs kept from before count no more."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DefectPictures:
    """n pictures of a folder per class.

    Attributes:
        files: Their paths.
        labels: Names of the classes, the good ones first.
        good: Which of the labels are no defect.
        targets: int (n,), position in ``labels``.
        groups: int (n,); pictures of one group show the same thing and stay on one side of a split.
        severity: (n,), NaN where it isn't known.
        grouped: How groups were told, for the card.
        bits: As for `read_picture`, the same for all.
    """

    files: tuple[Path, ...]
    labels: tuple[str, ...]
    good: tuple[str, ...]
    targets: np.ndarray
    groups: np.ndarray
    severity: np.ndarray
    grouped: str
    bits: int | None = None

    @property
    def defective(self) -> np.ndarray:
        """bool (n,)."""
        return np.array([self.labels[target] not in self.good for target in self.targets], bool)

    @property
    def names(self) -> list[str]:
        """FOLDER/FILE of each."""
        return [picture_name(file) for file in self.files]

    def take(self, rows: np.ndarray) -> DefectPictures:
        """Those pictures alone; ``rows`` are numbers or a mask."""
        numbers = np.arange(len(self.files))[rows]
        return DefectPictures(
            tuple(self.files[n] for n in numbers),
            self.labels,
            self.good,
            self.targets[numbers],
            self.groups[numbers],
            self.severity[numbers],
            self.grouped,
            self.bits,
        )


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which pictures show the same thing.

    Attributes:
        by: A CSV file with columns file and group; or a regular expression that is looked for in the file's name,
            whose first bracket (else the whole match) is the group; empty: every picture stands for itself.
        gap: Where the groups are numbers, those that follow each other by no more than this are one: pictures of
            one part are mostly taken in a row.
    """

    by: str = ""
    gap: int = 0

    def of(self, files: Sequence[Path]) -> tuple[np.ndarray, str]:
        """Group number of each file, and how it was told.

        Raises:
            ConfigurationError: A file has no group, or the expression is none.
        """
        if not self.by:
            return np.arange(len(files)), "every picture by itself"
        names = _from_csv(Path(self.by), files) if self.by.lower().endswith(".csv") else _by_pattern(self.by, files)
        if not self.gap:
            return np.unique(names, return_inverse=True)[1], self.by
        try:
            numbers = np.array([int(name) for name in names])
        except ValueError as error:
            raise ConfigurationError(
                "--group-gap", [f"groups of {self.by!r} are not whole numbers ({error})"]
            ) from error
        return _runs(numbers, self.gap), f"{self.by}, numbers at most {self.gap} apart are one group"


def list_defect_pictures(data: Path, good: Sequence[str] = (), grouping: Grouping | None = None) -> DefectPictures:
    """The pictures under ``data``, one folder per class.

    Args:
        data: The folder.
        good: Names of classes that are no defect; none: those of `GOOD_NAMES` that are there.
        grouping: See `Grouping`.

    Raises:
        ConfigurationError: There are not two classes with pictures, or none is good.
    """
    if not data.is_dir():
        raise ConfigurationError(str(data), ["no such folder; give one with a folder of pictures per class"])
    tree = find_pictures(data)
    found = tree.filled
    if len(found) < 2:
        remarks = [str(remark) for remark in tree.remarks]
        raise ConfigurationError(
            str(data), [f"holds {len(found)} folders with pictures; two are the least", *remarks]
        )
    tree.told(log.warning)
    chosen = tuple(clean_name(name) for name in good) or tuple(name for name in found if name.lower() in GOOD_NAMES)
    stray = [name for name in chosen if name not in found]
    if stray or not chosen or set(chosen) == set(found):
        problem = f"{stray[0]!r} has no pictures" if stray else "name the classes that are no defect, and not all"
        raise ConfigurationError("--good", [f"{problem}; classes here: {', '.join(found)}"])
    labels = (*chosen, *(name for name in found if name not in chosen))
    files = tuple(file for name in labels for file in found[name])
    targets = np.array([number for number, name in enumerate(labels) for _ in found[name]])
    groups, grouped = (grouping or Grouping()).of(files)
    severity = _severities(data, files)
    return DefectPictures(files, labels, chosen, targets, groups, severity, grouped, camera_bits(files))


@dataclass(frozen=True, slots=True)
class CellCutouts:
    """What the network gets to see.

    Attributes:
        pixels: uint8 (n, h, w, 3), BGR.
        rows: Which pictures these are.
        sizes: (n, 2), long and short side of the cell in the frame, pixels; empty where none was looked for.
        left_out: Files that can't be used, with the reason.
    """

    pixels: np.ndarray
    rows: np.ndarray
    sizes: np.ndarray
    left_out: dict[str, str]


def cut_out(
    pictures: DefectPictures,
    framing: Framing,
    finder: CellFinder | None,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> CellCutouts:
    """Read the pictures and cut the cells out; what stands in the folder ``cache`` isn't done again.

    Raises:
        ConfigurationError: None of them can be used.
    """
    pixels: list[np.ndarray] = []
    rows: list[int] = []
    sizes: list[tuple[float, float]] = []
    left_out: dict[str, str] = {}
    cut = f"{framing.crop} {framing.width} {framing.height} {framing.margin} {framing.ends}"
    identity = f"{READING} {pictures.bits} {cut} {finder.identity if finder else ''}"
    for row, file in enumerate(progress("pictures", pictures.files)):
        try:
            cutout, size = _kept_cutout(file, pictures.bits, framing, finder, identity, cache)
        except FrameError as error:
            left_out[str(file)] = str(error)
            continue
        pixels.append(cutout)
        rows.append(row)
        if size is not None:
            sizes.append(size)
    if not rows:
        raise ConfigurationError(str(pictures.files[0].parent.parent), ["no picture can be used"])
    return CellCutouts(np.stack(pixels), np.array(rows), np.array(sizes), left_out)


def _kept_cutout(
    file: Path,
    bits: int | None,
    framing: Framing,
    finder: CellFinder | None,
    identity: str,
    cache: Path | None,
) -> tuple[np.ndarray, tuple[float, float] | None]:
    if cache is None:
        return _cutout(file, bits, framing, finder)
    digest = hashlib.sha256(identity.encode())
    try:
        digest.update(file.read_bytes())
    except OSError as error:
        raise FrameError(f"{file}: can't be read ({error.strerror})") from error
    kept = cache / f"cut_{digest.hexdigest()}.npz"
    if kept.is_file():
        with np.load(kept) as stored:
            size = stored["size"]
            return stored["pixels"], (float(size[0]), float(size[1])) if size.size else None
    cutout, found = _cutout(file, bits, framing, finder)
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = cache / f"{digest.hexdigest()}.{os.getpid()}.npz"
    np.savez(unfinished, pixels=cutout, size=np.array(found or ()))
    unfinished.replace(kept)
    return cutout, found


def _cutout(
    file: Path, bits: int | None, framing: Framing, finder: CellFinder | None
) -> tuple[np.ndarray, tuple[float, float] | None]:
    bgr = np.ascontiguousarray(read_picture(file, bits)[..., ::-1])
    if finder is None:
        return framing.cut(bgr), None
    seen = finder.find(bgr)
    if seen.box is None:
        raise FrameError("no cell found")
    long, short = np.linalg.norm(seen.box[1] - seen.box[0]), np.linalg.norm(seen.box[3] - seen.box[0])
    return framing.cut(bgr, seen.box), (float(long), float(short))


class TrunkFeatures:
    """Runs the frozen trunk on cut-outs; what was computed once is kept.

    Args:
        trunk: A `Trunk`, or a network around one; it gives one array per picture.
        framing: Of the pictures.
        cache: Folder to keep features in; None: memory.
        device: A torch device; on the processor onnxruntime is used, which is several times as fast.
        threads: Processor threads.
    """

    def __init__(
        self,
        trunk: nn.Module,
        framing: Framing,
        cache: Path | None = None,
        device: torch.device | None = None,
        threads: int = 1,
    ) -> None:
        self._trunk, self._framing = trunk, framing
        self._device = device or torch.device("cpu")
        self._threads = threads
        self._cache = ActivationCache(cache)
        self._engine: Engine | None = None
        self.identity = f"{weights_digest(trunk)} {framing.model_dump_json()}"

    def of(self, cutouts: np.ndarray, progress: Progress = no_progress) -> np.ndarray:
        """What the trunk gives, float16 (n, …), of cut-outs, uint8 (n, h, w, 3)."""
        keys = self._cache.fill(self, progress("features", list(cutouts)))
        return np.stack([self._cache.take([key])[0].numpy().astype(np.float16) for key in keys])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The same, computed anew; for `ActivationCache`."""
        return np.concatenate([self._run(self._framing.normalise(cutout)[None]) for cutout in pixels]).astype(
            np.float16
        )

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        if self._device.type != "cpu":
            with torch.no_grad():
                return np.asarray(
                    self._trunk.to(self._device)(torch.from_numpy(pixels).to(self._device)).cpu().numpy()
                )
        if self._engine is None:
            self._engine = _as_engine(self._trunk, pixels.shape, self._threads)
        return self._engine.run(pixels)["grid"]


def _as_engine(trunk: nn.Module, shape: tuple[int, ...], threads: int) -> Engine:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trunk.onnx"
        export_onnx(trunk, [torch.zeros(1, *shape[1:])], path, ["grid"])
        return open_engine(path.read_bytes(), "trunk", threads=threads)


def _from_csv(path: Path, files: Sequence[Path]) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = {_written(row["file"]): row["group"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), [f"needs the columns file and group ({error})"]) from error
    groups = [table.get(picture_name(file), table.get(_written(file.name))) for file in files]
    lacking = [file.name for file, group in zip(files, groups, strict=True) if group is None]
    if lacking:
        raise ConfigurationError(str(path), [f"has no group for {lacking[0]} and {len(lacking) - 1} more"])
    return [str(group) for group in groups]


def _written(file: str) -> str:
    """A file's name as `picture_name` has it."""
    return unicodedata.normalize("NFC", file)


def _by_pattern(pattern: str, files: Sequence[Path]) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError("--groups", [f"{pattern!r} is no regular expression ({error})"]) from error
    matches = [compiled.search(file.name) for file in files]
    lacking = [file.name for file, match in zip(files, matches, strict=True) if match is None]
    if lacking:
        raise ConfigurationError("--groups", [f"{pattern!r} is not found in {lacking[0]}"])
    return [match.group(1 if compiled.groups else 0) for match in matches if match]


def _runs(numbers: np.ndarray, gap: int) -> np.ndarray:
    order = np.argsort(numbers, kind="stable")
    groups = np.zeros(len(numbers), int)
    groups[order] = np.concatenate([[0], np.cumsum(np.diff(numbers[order]) > gap)])
    return groups


def _severities(data: Path, files: Sequence[Path]) -> np.ndarray:
    """Of ``looks.csv`` beside the folders, where there is one with a column severity."""
    path = data / LOOKS_FILE
    known: dict[str, float] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row.get("severity"):
                    known[_written(row["file"])] = float(row["severity"])
    return np.array([known.get(picture_name(file), np.nan) for file in files])
