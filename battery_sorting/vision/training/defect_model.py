"""Training of a defect model: frozen trunk, a small head, calibration, novelty; ONNX file and card."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from battery_sorting.core.beside import check_writable
from battery_sorting.core.bounded import read_bytes
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import find_shared
from battery_sorting.core.strict_json import to_json
from battery_sorting.vision.card import CARD_FILE, LARGEST_FILE, WEIGHTS_FILE, sha256_of
from battery_sorting.vision.cell_finder import FINDER_FILE, CellFinder
from battery_sorting.vision.defect_card import DefectCard, ImageLimits
from battery_sorting.vision.defect_figures import (
    accuracy,
    auroc_with_interval,
    defect_figures,
    escape_threshold,
    severity_curve,
)
from battery_sorting.vision.framing import Framing, sharpness
from battery_sorting.vision.training.backbone import choose_device, input_config, load_backbone
from battery_sorting.vision.training.defect_data import (
    CellCutouts,
    DefectPictures,
    Grouping,
    TrunkFeatures,
    cut_out,
    list_defect_pictures,
)
from battery_sorting.vision.training.defect_head import (
    DefectHeadOptions,
    DefectNetwork,
    HeadEnsemble,
    Novelty,
    fit_calibration,
    fit_head,
    fit_novelty,
    novelty_of,
    probabilities_of,
    scores_of,
)
from battery_sorting.vision.training.defect_kernel import (
    FLIPS,
    KernelHead,
    KernelOptions,
    TextureTrunk,
    fit_kernel,
    kernel_scores,
)
from battery_sorting.vision.training.defect_tuning import TuningOptions, TuningPictures, maps_of, tune
from battery_sorting.vision.training.model_card import CARD_TEXT, card_text
from battery_sorting.vision.training.new_model import check_labels, name_and_version, new_model
from battery_sorting.vision.training.onnx_files import export_onnx
from battery_sorting.vision.training.progress import Progress, no_progress
from battery_sorting.vision.training.splits import grouped_splits
from battery_sorting.vision.training.trunk import STRIDES, Trunk

FRAMINGS: dict[str, dict[str, Any]] = {
    "lug": {"crop": "cell", "width": 352, "height": 128, "ends": 0.275},
    "case": {"crop": "cell", "width": 384, "height": 288},
    "": {"crop": "none", "width": 288, "height": 288, "contrast": "own"},
}
"""By view; what belongs to none is looked at as a whole."""
HEADS = ("kernel", "maps")
"""Regression on what the picture is made of (`KernelHead`), or convolutions on its maps (`DefectHead`)."""
HELD_OUT = 0.2
DEFECTIVE_FROM = 0.5
LEAST_GOOD_FOR_NOVELTY = 20
BLUR_ROOM = 0.6
"""A picture may be less sharp than nearly all training pictures by this factor."""
SIZE_ROOM = 1.12


@dataclass(frozen=True, slots=True)
class DefectOptions:
    """What to train, on what, and how.

    Attributes:
        data: A folder with a folder of pictures per class.
        view: ``lug`` or ``case`` for cells under the station's cameras, whose cell is cut out; else empty.
        good: Classes that are no defect; none: by name, see `list_defect_pictures`.
        grouping: Which pictures show the same thing.
        backbone: Name, see `load_backbone`.
        weights: File with its weights.
        size: Width and height that the network sees, pixels; None: the view's.
        finder: ``finder.onnx`` for views; None: that of the shipped model.
        strides: Scales of the trunk.
        learner: One of `HEADS`; empty: maps for cells, whose defects have their places, and else kernel.
        head: How the head on maps learns.
        tuning: How trunk and head on maps learn together, instead.
        kernel: How the kernel head learns.
        memory: Places that the novelty detector remembers; 0: no detector.
        false_alarm: Share of good pictures that it may hold back.
        max_escape: Share of defectives that may pass as good.
        splits: Random splits of groups on which figures and calibration rest.
        seed: Of splits and training.
        device: ``auto``, ``cpu``, ``cuda``.
        threads: Processor threads.
        cache: Folder that keeps features; None: memory.
    """

    data: Path
    view: str = ""
    good: tuple[str, ...] = ()
    grouping: Grouping = field(default_factory=Grouping)
    backbone: str = "lite0"
    weights: Path | None = None
    size: tuple[int, int] | None = None
    finder: Path | None = None
    strides: tuple[int, ...] = STRIDES
    learner: str = ""
    head: DefectHeadOptions = field(default_factory=DefectHeadOptions)
    tuning: TuningOptions = field(default_factory=TuningOptions)
    kernel: KernelOptions = field(default_factory=KernelOptions)
    memory: int = 600
    false_alarm: float = 0.01
    max_escape: float = 0.005
    splits: int = 5
    seed: int = 0
    device: str = "auto"
    threads: int = 1
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Pictures that can be used, their features, and what made them.

    ``textures`` (n, flips, d) are there for the kernel head alone, ``pixels`` (n, h, w, 3) for fine-tuning alone,
    to which the frozen ``grid`` is of no use.
    """

    pictures: DefectPictures
    grid: np.ndarray
    textures: np.ndarray | None
    pixels: np.ndarray | None
    framing: Framing
    trunk: Trunk
    limits: ImageLimits
    finder: Path | None
    left_out: dict[str, str]


@dataclass(frozen=True, slots=True)
class FittedDefects:
    """Head and novelty detector that were trained on some of the pictures, and the trunk before them."""

    head: HeadEnsemble | KernelHead
    novelty: Novelty | None
    trunk: Trunk


def prepare(options: DefectOptions, progress: Progress = no_progress) -> Prepared:
    """Read, cut out, and compute features.

    Raises:
        ConfigurationError: Settings or pictures that can't be used.
        ModelError: No backbone.
    """
    if options.view not in FRAMINGS:
        raise ConfigurationError("--view", [f"{options.view!r} is none; give lug or case, or leave it out"])
    learner = learner_of(options)
    if options.cache is not None:
        check_writable(options.cache, "--cache")
    pictures = list_defect_pictures(options.data, options.good, options.grouping)
    check_labels(pictures.labels, options.data)
    backbone = load_backbone(options.backbone, options.weights)
    framing = framing_of(options, backbone)
    cutouts, finder = cutouts_of(pictures, framing, options, options.threads, progress)
    trunk = Trunk(backbone, options.strides).eval().requires_grad_(False)
    device = choose_device(options.device)
    source = TrunkFeatures(trunk, framing, options.cache, device, options.threads)
    tuned = options.tuning.epochs > 0
    grid = np.zeros((len(cutouts.rows), 0, 0, 0), np.float16) if tuned else source.of(cutouts.pixels, progress)
    textures = None
    if learner == "kernel":
        summed = TrunkFeatures(TextureTrunk(trunk).eval(), framing, options.cache, device, options.threads)
        textures = flipped_textures(summed, cutouts.pixels, progress)
    limits = limits_of(cutouts, finder)
    usable = pictures.take(cutouts.rows)
    pixels = cutouts.pixels if tuned else None
    return Prepared(usable, grid, textures, pixels, framing, trunk.cpu(), limits, finder, cutouts.left_out)


def cutouts_of(
    pictures: DefectPictures,
    framing: Framing,
    options: DefectOptions,
    threads: int = 1,
    progress: Progress = no_progress,
) -> tuple[CellCutouts, Path | None]:
    """What the network gets to see of the pictures, and the file of the finder, if the cell had to be found.

    Raises:
        ConfigurationError: There is no finder, or no picture can be used.
    """
    finder = finder_of(options) if framing.crop == "cell" else None
    look = CellFinder(finder.read_bytes(), str(finder), threads) if finder else None
    return cut_out(pictures, framing, look, options.cache, progress), finder


def learner_of(options: DefectOptions) -> str:
    """Which of `HEADS` learns.

    Raises:
        ConfigurationError: There is no such head.
    """
    if options.learner and options.learner not in HEADS:
        raise ConfigurationError("--head", [f"{options.learner!r} is none; choose from {', '.join(HEADS)}"])
    learner = options.learner or ("maps" if FRAMINGS[options.view]["crop"] == "cell" else "kernel")
    if options.tuning.epochs and learner != "maps":
        raise ConfigurationError("--fine-tune", [f"goes with --head maps, not with {learner}"])
    return learner


def flipped_textures(source: TrunkFeatures, cutouts: np.ndarray, progress: Progress = no_progress) -> np.ndarray:
    """Textures float32 (n, flips, d) of cut-outs, uint8 (n, h, w, 3)."""
    flips = [np.ascontiguousarray(np.flip(cutouts, tuple(axis - 1 for axis in axes))) for axes in FLIPS]
    return np.stack([source.of(one, progress) for one in flips], axis=1).astype(np.float32)


def framing_of(options: DefectOptions, backbone: torch.nn.Module) -> Framing:
    """The view's framing in the wanted size, scaled as the backbone was pretrained."""
    config = input_config(backbone)
    wanted = FRAMINGS[options.view] | {"mean": config.mean, "std": config.std}
    if options.size is not None:
        wanted |= {"width": options.size[0], "height": options.size[1]}
    try:
        return Framing(**wanted)
    except ValueError as error:
        raise ConfigurationError("--size", ["give WIDTHxHEIGHT in multiples of 16, from 32 to 2048"]) from error


def finder_of(options: DefectOptions) -> Path:
    """File of the network that finds the cell.

    Raises:
        ConfigurationError: There is none.
    """
    chosen = options.finder or find_shared(f"models/{options.view}/1/{FINDER_FILE}")
    if chosen is None or not Path(chosen).is_file():
        raise ConfigurationError(
            "--finder", [f"{chosen or FINDER_FILE} is not there; train one with 'train finder'"]
        )
    return Path(chosen)


def fit(
    prepared: Prepared, rows: np.ndarray, options: DefectOptions, progress: Progress = no_progress
) -> FittedDefects:
    """Head and detector from the pictures ``rows`` (numbers)."""
    pictures, grid = prepared.pictures.take(rows), prepared.grid[rows]
    bad, labels = _bad(pictures), len(pictures.labels)
    head: HeadEnsemble | KernelHead
    trunk = prepared.trunk
    if prepared.pixels is not None:
        device, pixels = choose_device(options.device), prepared.pixels[rows]
        learnt = TuningPictures(prepared.framing, pixels, pictures.targets, bad, labels)
        trunk, head = tune(trunk, learnt, options.tuning, options.seed, device, progress)
        grid = maps_of(trunk, prepared.framing, pixels, device)
    elif prepared.textures is not None:
        head = fit_kernel(prepared.textures[rows], pictures.targets, bad, labels, options.kernel)
    else:
        parts = 2 if prepared.framing.ends else 1
        head = fit_head(grid, pictures.targets, bad, labels, parts, options.head, progress)
    good = grid[~pictures.defective]
    novelty = None
    if options.memory and len(good) >= LEAST_GOOD_FOR_NOVELTY:
        novelty = fit_novelty(good, options.memory, options.false_alarm, options.seed, progress)
    return FittedDefects(head, novelty, trunk)


def train_defects(
    options: DefectOptions, out: Path, progress: Progress = no_progress, overwrite: bool = False
) -> DefectCard:
    """Train on all pictures and write the model's folder.

    Figures in the card are those of held-out groups, judged by a model that was trained without them; what is
    shipped was then trained on everything.

    Args:
        options: Pictures and settings.
        out: Folder NAME/VERSION.
        progress: Shows how far it is.
        overwrite: Whether a version that is there may be replaced.

    Raises:
        ConfigurationError: Settings or pictures that can't be used; the version is there already, or can't be
            written.
        ModelError: No backbone.
    """
    began = time.perf_counter()
    with new_model(out, overwrite) as folder:
        prepared = prepare(options, progress)
        judged = judge_splits(prepared, options, options.splits, progress)
        return ship(prepared, judged, options, folder, name_and_version(out), began, progress)


def ship(
    prepared: Prepared,
    judged: HeldOutVerdicts,
    options: DefectOptions,
    out: Path,
    name: tuple[str, str],
    began: float,
    progress: Progress = no_progress,
) -> DefectCard:
    """Train on all pictures and write the model to the empty folder ``out``.

    ``name`` is its name and version; ``began`` is when the work did, by `perf_counter`.
    """
    pictures = prepared.pictures
    fitted = fit(prepared, np.arange(len(pictures.files)), options, progress)
    calibration = fit_calibration(judged.scores, judged.targets, judged.defective, _bad(pictures))
    good = [pictures.labels.index(label) for label in pictures.good]
    network = DefectNetwork(fitted.trunk, fitted.head, fitted.novelty, calibration, good)
    return write_model(
        out,
        name,
        network,
        network.outputs,
        prepared.framing,
        prepared.finder,
        view=options.view,
        labels=list(pictures.labels),
        good=list(pictures.good),
        novelty_from=1.0 if fitted.novelty is not None else None,
        limits=prepared.limits,
        data=describe(pictures, options, prepared.left_out)
        | {
            "backbone": options.backbone,
            "strides": list(options.strides),
            "fine_tuned_epochs": options.tuning.epochs,
            "head": learner_of(options),
            "held_out": f"{judged.split.max() + 1} random splits of whole groups; what is shipped learnt from all",
        },
        metrics=judged.report()
        | {"escape": judged.escape(options.max_escape), "seconds": round(time.perf_counter() - began, 1)},
    )


def write_model(
    out: Path,
    name: tuple[str, str],
    network: torch.nn.Module,
    outputs: Sequence[str],
    framing: Framing,
    finder: Path | None,
    **card: Any,
) -> DefectCard:
    """Write ``model.onnx``, the finder, and the card, for programs and for people.

    Args:
        out: Empty folder, see `new_model`.
        name: Name and version.
        network: From normalised pixels (n, 3, h, w) to ``outputs``, the first of them probabilities (n, labels).
        outputs: Names.
        framing: What the network gets to see.
        finder: File of the network that finds the cell; None where there is nothing to find.
        card: All else that stands in a `DefectCard`; its metrics hold what `escape_threshold` says.
    """
    export_onnx(network, [torch.zeros(1, 3, framing.height, framing.width)], out / WEIGHTS_FILE, outputs)
    files = {}
    if finder is not None:
        (out / FINDER_FILE).write_bytes(read_bytes(finder, LARGEST_FILE))
        files[FINDER_FILE] = sha256_of(out / FINDER_FILE)
    written = DefectCard(
        name=name[0],
        version=name[1],
        framing=framing,
        defective_from=DEFECTIVE_FROM,
        good_below=min(DEFECTIVE_FROM, card["metrics"]["escape"]["good_below"]),
        sha256=sha256_of(out / WEIGHTS_FILE),
        files=files,
        **card,
    )
    text = to_json(written.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (out / CARD_FILE).write_text(text + "\n", encoding="utf-8")
    (out / CARD_TEXT).write_text(card_text(written), encoding="utf-8")
    return written


@dataclass(frozen=True, slots=True)
class HeldOutVerdicts:
    """Pictures of held-out groups as they were judged; a picture may stand in several splits.

    Attributes:
        probability: (n,) of being defective.
        defective: bool (n,), the truth.
        kinds: int (n,) the most probable label.
        targets: int (n,) the true one.
        novelty: (n,), NaN without a detector.
        split: int (n,).
        names: (n,) FOLDER/FILE.
        severity: (n,), NaN where unknown.
        scores: (n, 1 + labels) of the head, before calibration; empty for a finished model.
        labels: Names of the classes.
    """

    probability: np.ndarray
    defective: np.ndarray
    kinds: np.ndarray
    targets: np.ndarray
    novelty: np.ndarray
    split: np.ndarray
    names: np.ndarray
    severity: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]

    def report(self, threshold: float = 0.5) -> dict[str, Any]:
        """Figures over all splits, of each split, by class and by severity."""
        figures = defect_figures(self.probability, self.defective, self.names.tolist(), threshold)
        accuracies = [
            accuracy(
                self.probability[self.split == n],
                self.defective[self.split == n],
                self.names[self.split == n].tolist(),
                threshold,
            )["value"]
            for n in np.unique(self.split)
        ]
        report: dict[str, Any] = figures | {
            "splits": len(accuracies),
            "accuracy_of_splits": {
                "mean": round(float(np.mean(accuracies)), 4),
                "sd": round(float(np.std(accuracies, ddof=1)), 4) if len(accuracies) > 1 else None,
                "worst": min(accuracies),
            },
            "kinds": self.by_kind(threshold),
        }
        known = self.defective & ~np.isnan(self.severity)
        if known.any():
            report["severity"] = severity_curve(self.severity[known], (self.probability >= threshold)[known])
        if not np.isnan(self.novelty).all():
            report["novelty"] = {
                "auroc": auroc_with_interval(
                    np.nan_to_num(self.novelty, nan=1.0), self.defective, self.names.astype(str)
                ),
                "caught_at_limit": round(float((self.novelty[self.defective] >= 1.0).mean()), 4)
                if self.defective.any()
                else None,
                "good_held_back": round(float((self.novelty[~self.defective] >= 1.0).mean()), 4),
            }
        return report

    def escape(self, most: float) -> dict[str, Any]:
        """What `escape_threshold` says where at most that share (0..1) of the defectives may pass."""
        return escape_threshold(self.probability, self.defective, self.names.tolist(), most)

    def by_kind(self, threshold: float = 0.5) -> dict[str, dict[str, float]]:
        """Of each class how many are said to be defective, and how many are told by name; shares 0..1."""
        rows = {}
        for number, label in enumerate(self.labels):
            own = self.targets == number
            if own.any():
                rows[label] = {
                    "said_defective": round(float((self.probability[own] >= threshold).mean()), 4),
                    "named": round(float((self.kinds[own] == number).mean()), 4),
                    "judged": int(own.sum()),
                }
        return rows


def judge_splits(
    prepared: Prepared,
    options: DefectOptions,
    splits: int,
    progress: Progress = no_progress,
    share: float = HELD_OUT,
) -> HeldOutVerdicts:
    """Train and judge on ``splits`` random splits that keep groups together."""
    pictures = prepared.pictures
    names = [pictures.labels[target] for target in pictures.targets]
    parts: list[HeldOutVerdicts] = []
    chosen = list(enumerate(grouped_splits(names, pictures.groups, splits, options.seed, share)))
    for number, split in progress("splits", chosen):
        fitted = fit(prepared, split.train, options)
        parts.append(_judge(fitted, prepared, split.test, number))
    return _calibrated(parts, pictures)


def _judge(fitted: FittedDefects, prepared: Prepared, rows: np.ndarray, split: int) -> HeldOutVerdicts:
    """Scores of pictures that were not learnt; probabilities come with the calibration."""
    pictures, grid, count = prepared.pictures.take(rows), prepared.grid[rows], len(rows)
    if prepared.pixels is not None:
        grid = maps_of(fitted.trunk, prepared.framing, prepared.pixels[rows])
    novelty = novelty_of(fitted.novelty, grid) if fitted.novelty is not None else np.full(count, np.nan)
    if isinstance(fitted.head, KernelHead):
        assert prepared.textures is not None
        scores = kernel_scores(fitted.head, prepared.textures[rows])
    else:
        scores = scores_of(fitted.head, grid)
    nothing = np.full(count, np.nan)
    return HeldOutVerdicts(
        probability=nothing,
        defective=pictures.defective,
        kinds=np.zeros(count, int),
        targets=pictures.targets,
        novelty=novelty,
        split=np.full(count, split),
        names=np.array(pictures.names),
        severity=pictures.severity,
        scores=scores,
        labels=pictures.labels,
    )


def _calibrated(parts: Sequence[HeldOutVerdicts], pictures: DefectPictures) -> HeldOutVerdicts:
    """All splits as one, each calibrated by the others; a single one by itself."""
    done = []
    good = [pictures.labels.index(label) for label in pictures.good]
    for number, part in enumerate(parts):
        others = [other for n, other in enumerate(parts) if n != number] or [part]
        scores, targets, defective = (
            np.concatenate([getattr(other, column) for other in others])
            for column in ("scores", "targets", "defective")
        )
        calibration = fit_calibration(scores, targets, defective, _bad(pictures))
        said = probabilities_of(torch.from_numpy(part.scores), calibration, good).numpy()
        probability = 1.0 - said[:, good].sum(axis=1)
        done.append(replace(part, probability=probability, kinds=said.argmax(axis=1)))
    columns = [field.name for field in fields(HeldOutVerdicts) if field.name != "labels"]
    together = {column: np.concatenate([getattr(part, column) for part in done]) for column in columns}
    return HeldOutVerdicts(**together, labels=pictures.labels)


def _bad(pictures: DefectPictures) -> list[int]:
    return [number for number, label in enumerate(pictures.labels) if label not in pictures.good]


def limits_of(cutouts: CellCutouts, finder: Path | None) -> ImageLimits:
    """Limits with room around what these pictures show; none where no cell was found in them."""
    if finder is None:
        return ImageLimits()
    return ImageLimits(sharpness=_least_sharp(cutouts.pixels), **_size_limits(cutouts.sizes))


def _least_sharp(cutouts: np.ndarray) -> float:
    """Sharpness from which a picture is looked at."""
    sharp = np.array([sharpness(pixels) for pixels in cutouts])
    return round(BLUR_ROOM * float(np.quantile(sharp, 0.01)), 4)


def _size_limits(sizes: np.ndarray) -> dict[str, Any]:
    """Room around what the training pictures show: long side in pixels, and long over short side."""
    if not len(sizes):
        return {}
    longs, ratios = sizes[:, 0], sizes[:, 0] / sizes[:, 1]
    return {
        "cell_px": (
            round(float(np.quantile(longs, 0.01)) / SIZE_ROOM, 1),
            round(float(np.quantile(longs, 0.99)) * SIZE_ROOM, 1),
        ),
        "slenderness": (
            round(float(np.quantile(ratios, 0.01)) / SIZE_ROOM, 3),
            round(float(np.quantile(ratios, 0.99)) * SIZE_ROOM, 3),
        ),
    }


def describe(pictures: DefectPictures, options: DefectOptions, left_out: Mapping[str, str]) -> dict[str, Any]:
    """What a card says of the pictures."""
    counts = {label: int((pictures.targets == n).sum()) for n, label in enumerate(pictures.labels)}
    return {
        "trained": date.today().isoformat(),
        "source": options.data.resolve().name,
        "pictures": len(pictures.files),
        "per_label": counts,
        "groups": len(np.unique(pictures.groups)),
        "grouped_by": pictures.grouped,
        "left_out": len(left_out),
        "seed": options.seed,
    }
