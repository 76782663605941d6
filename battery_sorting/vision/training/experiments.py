"""The experiments of the BatSort paper (arXiv 2404.05802, tables I and II, figure 3), run again on your pictures.

Every run splits the pictures anew at random, as the paper does: 20 % for the test, and of the rest 10 % for
validation. All settings of an experiment see the same splits, so that they are compared picture by picture.
"""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t

from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.core.strict_json import to_json
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.pictures import read_picture
from battery_sorting.vision.preprocessing import Preprocessing
from battery_sorting.vision.training.backbone import backbone_name, load_backbone, random_backbone, units
from battery_sorting.vision.training.corrections import Corrections
from battery_sorting.vision.training.data import list_photographs
from battery_sorting.vision.training.progress import Progress, no_progress
from battery_sorting.vision.training.two_stage import ActivationCache, LabelledImages, TwoStage, TwoStageOptions

log = logging.getLogger(__name__)

Fit = Literal["squash", "letterbox", "crop"]
FITS: tuple[Fit, ...] = ("squash", "letterbox", "crop")
TEST_PART, VALIDATION_PART = 0.2, 0.1
PAPER_RUNS = 10
RUNS = "runs.csv"
PADDING = 127
WHOLE = -1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AccuracyFigures:
    """Mean, best and standard deviation of the test accuracy over runs, 0..1; None where the paper is silent."""

    mean: float | None = None
    best: float | None = None
    sd: float | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of a table: what is varied, and what the paper found.

    ``blocks`` and ``dropout`` are those of `TwoStageOptions`. With `WHOLE` in place of a number of blocks the whole
    network starts from random weights, without any knowledge, and learns in both stages.
    """

    name: str
    paper: AccuracyFigures
    blocks: int = 2
    dropout: float = 0.2

    @property
    def knowledge(self) -> bool:
        """Whether the backbone is a pretrained one."""
        return self.blocks != WHOLE


@dataclass(frozen=True, slots=True)
class Experiment:
    """A table or figure of the paper."""

    title: str
    settings: tuple[Setting, ...]


EXPERIMENTS = {
    "batsort-table1": Experiment(
        "Table I: what transferred knowledge is worth",
        (
            Setting("no knowledge", AccuracyFigures(0.304, 0.510, 0.114), blocks=WHOLE),
            Setting("frozen", AccuracyFigures(0.831, 0.887, 0.048), blocks=0),
            Setting("tuned", AccuracyFigures(0.921, 0.943, 0.024), blocks=2),
        ),
    ),
    "batsort-table2": Experiment(
        "Table II: how many blocks learn beside the new layers",
        (
            Setting("0 blocks", AccuracyFigures(0.831, 0.887, 0.048), blocks=0),
            Setting("1 block", AccuracyFigures(0.902, 0.942, 0.042), blocks=1),
            Setting("2 blocks", AccuracyFigures(0.921, 0.943, 0.024), blocks=2),
            Setting("3 blocks", AccuracyFigures(0.840, 0.925, 0.051), blocks=3),
            Setting("4 blocks", AccuracyFigures(0.690, 0.868, 0.114), blocks=4),
        ),
    ),
    "batsort-figure3": Experiment(
        "Figure 3: dropout",
        (
            Setting("0 %", AccuracyFigures(), dropout=0.0),
            Setting("10 %", AccuracyFigures(), dropout=0.1),
            Setting("20 %", AccuracyFigures(0.921, 0.943, 0.024), dropout=0.2),
            Setting("30 %", AccuracyFigures(best=0.962), dropout=0.3),
            Setting("40 %", AccuracyFigures(), dropout=0.4),
            Setting("50 %", AccuracyFigures(), dropout=0.5),
        ),
    ),
}
"""The paper's figures: tables I and II as printed; of figure 3 what section IV-C says in words."""


@dataclass(frozen=True, slots=True)
class ExperimentOptions:
    """Where pictures come from and results go, and what the paper leaves open.

    Attributes:
        size: Side of the pictures, pixels. (The paper prints 244, which is 224 in most of the backbone's uses.)
        scratch_size: The same where the whole network learns; smaller, since nothing can be computed ahead there.
        fit: ``squash`` to a square, as the paper does; ``letterbox`` keeps the aspect; ``crop`` cuts the battery
            out, level, at half that height, as this package does elsewhere.
        labels: List of corrections; None takes the labels as published.
        both_stages: Blocks learn in the first stage, too, at its large rate.
        copies: Augmented versions per picture; the paper speaks of none.
    """

    data: Path
    out: Path
    runs: int = PAPER_RUNS
    backbone: str = "lite0"
    weights: Path | None = None
    size: int = 224
    scratch_size: int = 96
    fit: Fit = "squash"
    labels: str | None = None
    both_stages: bool = False
    copies: int = 0
    seed: int = 0
    device: str = "auto"
    resume: bool = False


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A line of the runs' file. Accuracies 0..1; of training without dropout."""

    blocks: int
    dropout: float
    run: int
    train: int
    validation: int
    test: int
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float
    first_epochs: int
    second_epochs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A setting over its runs, beside the paper's figures. ``epochs`` is the median, ``seconds`` the sum."""

    setting: str
    runs: int
    mean: float
    best: float
    sd: float
    train_mean: float
    epochs: float
    seconds: float
    paper: AccuracyFigures


def run_experiment(name: str, options: ExperimentOptions, progress: Progress = no_progress) -> dict[str, Any]:
    """Run what is missing of an experiment and write ``NAME.csv``, ``NAME.md`` and ``NAME.png``.

    All runs of a folder stand in ``runs.csv``; what the experiments have in common is run once.

    Args:
        name: One of `EXPERIMENTS`.
        options: See `ExperimentOptions`.
        progress: Called with a text and the runs to come.

    Returns:
        Title, options, a summary per setting beside the paper's, and findings in words.

    Raises:
        ConfigurationError: Unknown experiment, no pictures, or results of other settings in the folder.
        ModelError: The backbone or its weights can't be had.
    """
    if name not in EXPERIMENTS:
        raise ConfigurationError(name, [f"no such experiment; there are {', '.join(EXPERIMENTS)}"])
    if options.fit not in FITS:
        raise ConfigurationError("--input", [f"{options.fit!r} is none of {', '.join(FITS)}"])
    experiment = EXPERIMENTS[name]
    results = _Results(options.out, _identity(options))
    done = results.open(options.resume)
    wanted = [(run, setting) for run in range(options.runs) for setting in experiment.settings]
    missing = [(run, setting) for run, setting in wanted if (setting.blocks, setting.dropout, run) not in done]
    if missing:
        bench = _Bench(options, experiment)
        for run, setting in progress(name, missing):
            results.add(bench.run(setting, run))
    runs = [run for run in results.runs if run.run < options.runs]
    report = summarise(experiment, runs)
    report["options"] = _identity(options) | {"runs": options.runs}
    _write(options.out / name, experiment, report, runs)
    return report


def split(count: int, seed: int, run: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows for training, validation and test: 72, 8 and 20 % of ``count``, at random."""
    order = np.random.default_rng([seed, run]).permutation(count)
    test = max(1, round(TEST_PART * count))
    validation = max(1, round(VALIDATION_PART * (count - test)))
    return order[test + validation :], order[test : test + validation], order[:test]


def summarise(experiment: Experiment, runs: Sequence[TrainingRun]) -> dict[str, Any]:
    """Figures per setting and, in words, where they agree with the paper's and where not."""
    by_setting = {setting.name: _runs_of(setting, runs) for setting in experiment.settings}
    rows = [_summary(setting, by_setting[setting.name]) for setting in experiment.settings]
    findings = [text for row in rows if (text := _beside_paper(row))]
    accuracies = {name: np.array([run.test_accuracy for run in own]) for name, own in by_setting.items()}
    findings += _changes(experiment, accuracies)
    return {"title": experiment.title, "summary": [asdict(row) for row in rows], "findings": findings}


def read_examples(options: ExperimentOptions, size: int) -> tuple[LabelledImages, tuple[str, ...]]:
    """Pictures of the known types at ``size``, and the types' names. What can't be read is logged and left out.

    Raises:
        ConfigurationError: No folder, no pictures, or fewer than two types.
    """
    corrections = Corrections.load(options.labels) if options.labels else None
    photographs = [each for each in list_photographs(options.data, corrections) if each.label != OTHERS]
    pixels, labels = [], []
    for photograph in photographs:
        try:
            pixels.append(fit_picture(read_picture(photograph.path, photograph.bits), size, options.fit))
        except FrameError as error:
            log.warning("left out: %s", error)
            continue
        labels.append(photograph.label)
    names = tuple(sorted(set(labels)))
    if len(names) < 2 or len(labels) < 10:
        problem = f"--data: {len(labels)} pictures of {len(names)} types; ten of two types are the least"
        raise ConfigurationError(str(options.data), [problem])
    return LabelledImages(np.stack(pixels), np.array([names.index(label) for label in labels])), names


def fit_picture(rgb: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """The picture at the network's size, uint8 RGB; see `ExperimentOptions.fit`."""
    if fit == "crop":
        return Preprocessing(width=size, height=size // 2).cut_out(rgb).pixels
    height, width = rgb.shape[:2]
    if fit == "letterbox":
        scale = size / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    else:
        height = width = size
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    square = np.full((size, size, 3), PADDING, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = small
    return square


class _Bench:
    """Pictures, backbone and activations, shared by all runs."""

    def __init__(self, options: ExperimentOptions, experiment: Experiment) -> None:
        self._options = options
        self._cache = ActivationCache()
        self._examples: dict[int, LabelledImages] = {}
        sizes = {self._size(setting) for setting in experiment.settings}
        for size in sizes:
            self._examples[size], self._labels = read_examples(options, size)
        knowledge = any(setting.knowledge for setting in experiment.settings)
        self._backbone = load_backbone(options.backbone, options.weights) if knowledge else None

    def run(self, setting: Setting, run: int) -> TrainingRun:
        started = time.perf_counter()
        options = self._options
        examples = self._examples[self._size(setting)]
        train, validation, test = (examples.take(rows) for rows in split(len(examples.targets), options.seed, run))
        seed = 1000 * options.seed + run
        backbone = self._backbone if setting.knowledge else random_backbone(options.backbone, seed)
        assert backbone is not None
        blocks = setting.blocks if setting.knowledge else len(units(backbone))
        settings = TwoStageOptions(
            blocks=blocks,
            first_blocks=blocks if options.both_stages or not setting.knowledge else 0,
            dropout=setting.dropout,
            batch_norm="frozen" if setting.knowledge else "trained",
            copies=options.copies,
            seed=seed,
            device=options.device,
        )
        fitted = TwoStage(backbone, self._labels, settings, self._cache).fit(train, validation)

        def accuracy(part: LabelledImages) -> float:
            said = fitted.probabilities(part.pixels, self._cache).argmax(axis=1)
            return round(float((said == part.targets).mean()), 4)

        return TrainingRun(
            blocks=setting.blocks,
            dropout=setting.dropout,
            run=run,
            train=len(train.targets),
            validation=len(validation.targets),
            test=len(test.targets),
            train_accuracy=accuracy(train),
            validation_accuracy=accuracy(validation),
            test_accuracy=accuracy(test),
            first_epochs=sum(epoch.stage == 1 for epoch in fitted.history),
            second_epochs=sum(epoch.stage == 2 for epoch in fitted.history),
            seconds=round(time.perf_counter() - started, 1),
        )

    def _size(self, setting: Setting) -> int:
        return self._options.size if setting.knowledge else self._options.scratch_size


class _Results:
    """The runs that a folder holds."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self._folder = folder
        self._identity = identity
        self.runs: list[TrainingRun] = []

    def open(self, resume: bool) -> set[tuple[int, float, int]]:
        """Blocks, dropout and number of the runs that are there already.

        Raises:
            ConfigurationError: There are some, but they are not wanted or of other options.
        """
        runs, settings = self._folder / RUNS, self._folder / "options.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        if not runs.exists():
            settings.write_text(to_json(self._identity, indent=2) + "\n", encoding="utf-8")
            return set()
        if not resume:
            problem = "has runs already: use them with --resume, or give another folder with --out"
            raise ConfigurationError(str(runs), [problem])
        try:
            before = json.loads(settings.read_text(encoding="utf-8"))
            with runs.open(newline="", encoding="utf-8") as file:
                self.runs = [_read_run(row) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"can't be read ({error}); give another folder with --out"
            raise ConfigurationError(str(runs), [problem]) from error
        differing = [key for key, value in self._identity.items() if before.get(key) != value]
        if differing:
            told = [
                f"{key}: the runs there have {before.get(key)!r}, not {self._identity[key]!r}" for key in differing
            ]
            raise ConfigurationError(str(settings), [*told, "give the same options, or another folder with --out"])
        return {(run.blocks, run.dropout, run.run) for run in self.runs}

    def add(self, run: TrainingRun) -> None:
        path = self._folder / RUNS
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(TrainingRun)])
            if new:
                writer.writeheader()
            writer.writerow(asdict(run))
        self.runs.append(run)


def _write(path: Path, experiment: Experiment, report: dict[str, Any], runs: Sequence[TrainingRun]) -> None:
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        rows = [_flat(row) for row in report["summary"]]
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    path.with_suffix(".md").write_text(as_markdown(report), encoding="utf-8")
    _plot(experiment, report, runs, path.with_suffix(".png"))


def as_markdown(report: dict[str, Any]) -> str:
    """The table beside the paper's, and the findings."""
    options = report["options"]
    told = options | {"labels": options["labels"] or "as published"}
    about = ", ".join(f"{key} {value}" for key, value in told.items() if value not in (None, False))
    lines = [
        f"# {report['title']}",
        "",
        f"Test accuracy over random splits ({about}).",
        "",
        "| setting | runs | mean | best | sd | on training pictures | paper: mean | best | sd |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["summary"]:
        paper = row["paper"]
        cells = [row["setting"], str(row["runs"]), *map(_percent, (row["mean"], row["best"])), _sd(row["sd"])]
        cells += [_percent(row["train_mean"]), *map(_percent, (paper["mean"], paper["best"])), _sd(paper["sd"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {finding}" for finding in report["findings"])]) + "\n"


def _runs_of(setting: Setting, runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    own = [run for run in runs if (run.blocks, run.dropout) == (setting.blocks, setting.dropout)]
    return sorted(own, key=lambda run: run.run)


def _summary(setting: Setting, runs: Sequence[TrainingRun]) -> Summary:
    test = np.array([run.test_accuracy for run in runs]) if runs else np.array([np.nan])
    return Summary(
        setting=setting.name,
        runs=len(runs),
        mean=round(float(test.mean()), 4),
        best=round(float(test.max()), 4),
        sd=round(_spread(test), 4),
        train_mean=round(float(np.mean([run.train_accuracy for run in runs])), 4) if runs else float("nan"),
        epochs=float(np.median([run.first_epochs + run.second_epochs for run in runs])) if runs else float("nan"),
        seconds=round(float(sum(run.seconds for run in runs)), 1),
        paper=setting.paper,
    )


def _beside_paper(row: Summary) -> str:
    """Whether a mean differs from the paper's by more than chance: Welch's interval (95 %) of the difference."""
    paper = row.paper
    if paper.mean is None or paper.sd is None or row.runs < 2:
        return ""
    ours, theirs = row.sd**2 / row.runs, paper.sd**2 / PAPER_RUNS
    freedom = (ours + theirs) ** 2 / (ours**2 / (row.runs - 1) + theirs**2 / (PAPER_RUNS - 1))
    error = float(t.ppf(0.975, freedom) * np.sqrt(ours + theirs))
    difference = row.mean - paper.mean
    said = f"{row.setting}: {row.mean:.1%} here, {paper.mean:.1%} in the paper"
    if abs(difference) <= error:
        return f"{said}: no further apart than chance explains (± {100 * error:.1f} points)."
    way = "above" if difference > 0 else "below"
    return f"{said}: **{abs(100 * difference):.1f} points {way} the paper** (± {100 * error:.1f})."


def _changes(experiment: Experiment, accuracies: dict[str, np.ndarray]) -> list[str]:
    """Each setting against the paper's choice (its most accurate) on the same splits, with Student's interval."""
    named = [setting for setting in experiment.settings if setting.paper.mean is not None]
    reference = max(named, key=lambda setting: setting.paper.mean or 0.0)
    texts = []
    for setting in experiment.settings:
        ours, theirs = accuracies[setting.name], accuracies[reference.name]
        if setting is reference or len(ours) < 2 or len(ours) != len(theirs):
            continue
        change = ours - theirs
        error = float(t.ppf(0.975, len(change) - 1) * _spread(change) / np.sqrt(len(change)))
        text = (
            f"{setting.name} against {reference.name}: {100 * change.mean():+.1f} ± {100 * error:.1f} points here"
        )
        if setting.paper.mean is not None and reference.paper.mean is not None:
            paper = setting.paper.mean - reference.paper.mean
            text += f", {100 * paper:+.1f} in the paper: {_verdict(float(change.mean()), error, paper)}"
        texts.append(f"{text}.")
    return texts


def _verdict(change: float, error: float, paper: float) -> str:
    """Whether a change that the paper reports is there, here; ``error`` is half a 95 % interval."""
    if change < 0 and change <= -error:
        return "a fall here, too" if change <= paper / 2 else "**a fall, but less than half of the paper's**"
    if change - error <= paper:
        return "these runs can't tell"
    return "**the paper's fall is not seen**" if change > paper / 4 else "**less of a fall than the paper's**"


def _spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _plot(experiment: Experiment, report: dict[str, Any], runs: Sequence[TrainingRun], path: Path) -> None:
    """Boxes of the runs, for training and test as in the paper's figure 3; the paper's means as crosses."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels: list[tuple[str, str]] = [("test pictures", "test_accuracy"), ("training pictures", "train_accuracy")]
    axes: list[Axes] = list(figure.subplots(1, 2, sharey=True))
    names = [setting.name for setting in experiment.settings]
    for axis, (title, field) in zip(axes, panels, strict=True):
        values = [[100 * getattr(run, field) for run in _runs_of(own, runs)] for own in experiment.settings]
        axis.boxplot(values, tick_labels=names, medianprops={"color": "black"})
        axis.axhline(95, color="firebrick", linestyle="--", linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.tick_params(labelsize=8)
    found = [(n, 100 * row["paper"]["mean"]) for n, row in enumerate(report["summary"], 1) if row["paper"]["mean"]]
    axes[0].plot(*zip(*found, strict=True), "x", color="tab:blue", label="the paper's mean")
    axes[0].legend(fontsize=8)
    axes[0].set_ylabel("accuracy, %")
    figure.suptitle(experiment.title, fontsize=11)
    figure.savefig(path, dpi=120)


def _identity(options: ExperimentOptions) -> dict[str, Any]:
    """Options that the results depend on."""
    plain = replace(options, backbone=backbone_name(options.backbone))
    elsewhere = {"data", "out", "runs", "weights", "resume", "device"}
    named = {key: value for key, value in asdict(plain).items() if key not in elsewhere}
    return named | {"weights": options.weights.name if options.weights else None}


def _read_run(row: dict[str, str]) -> TrainingRun:
    kinds: dict[Any, Callable[[str], Any]] = {"int": int, "float": float}
    return TrainingRun(**{field.name: kinds[field.type](row[field.name]) for field in fields(TrainingRun)})


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    paper = {f"paper_{key}": value for key, value in row["paper"].items()}
    return {key: value for key, value in row.items() if key != "paper"} | paper


def _percent(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.1%}"


def _sd(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
