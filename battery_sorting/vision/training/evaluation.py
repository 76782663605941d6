"""Honest figures for battery types: many splits, with and without near-duplicates, in other light, with a new type.

Features are computed once; only heads are fitted again for every split.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from joblib import Parallel, delayed

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.card import ViewPolicy
from battery_sorting.vision.chemistry import chemistry_errors
from battery_sorting.vision.open_set import Outputs
from battery_sorting.vision.picture_folders import find_pictures
from battery_sorting.vision.pictures import Photograph
from battery_sorting.vision.training import backbone, data, head, open_set, selective
from battery_sorting.vision.training.head import FastHead
from battery_sorting.vision.training.progress import Progress, no_progress
from battery_sorting.vision.training.splits import Split, grouped_splits, random_splits
from battery_sorting.vision.training.type_model import (
    TrainingOptions,
    TrainingSetup,
    after_second_look,
    calibrated,
    hold_out,
    outputs_of,
    picture_folds,
)
from battery_sorting.vision.training.views import (
    LOOK,
    NOTHING,
    PLAIN,
    ViewMaker,
    ViewTable,
)

log = logging.getLogger(__name__)

PAPER = {"mean": 0.921, "best": 0.943, "sd": 0.024}
"""BatSort, table I: ten random splits."""
VALIDATION = 0.1
SURE = ViewPolicy().sure
NEW_TYPE_PICTURES = 10
LIGHT = ("warmer 12 %", "colder 12 %", "greener 12 %", "brighter 25 %", "darker 25 %")
BACKGROUNDS = ("dark background", "coloured background", "textured background")


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """How much is evaluated.

    Attributes:
        random: Random splits, as in the paper.
        grouped: Splits that keep near-duplicates together.
        others: Splits for the *Other* pictures as unknowns; half of them for each type that is left out.
        new_type: Times that every type is the new one; 0: none.
        robustness: Whether disturbed pictures are judged.
        target_purity: Purity that a threshold is sought for.
        strangers: Pictures of no known type, a folder for each kind of stranger; None: none are judged.
        false_reject: Share of known pictures that the rules for unknown types are asked to give up.
    """

    random: int = 10
    grouped: int = 50
    others: int = 20
    new_type: int = 6
    robustness: bool = True
    target_purity: float = 0.997
    strangers: Path | None = None
    false_reject: float = open_set.FALSE_REJECT


@dataclass(frozen=True, slots=True)
class JudgedSplits:
    """What became of the test pictures of all splits, one after the other.

    Attributes:
        split: (m,) number of the split.
        picture: (m,) number of the picture.
        target: (m,) its label's number.
        equal: (m, L) probabilities of one view before calibration.
        one: (m, L) of one view.
        both: (m, L) mean with a second look, where there is one.
        disturbed: (m,) number of the label that each disturbed picture was given, by disturbance; -1: no such view.
    """

    split: np.ndarray
    picture: np.ndarray
    target: np.ndarray
    equal: np.ndarray
    one: np.ndarray
    both: np.ndarray
    disturbed: dict[str, np.ndarray]

    @property
    def said(self) -> np.ndarray:
        """(m, L) as the classifier decides: with a second look where the first left doubt."""
        return after_doubt(self.one, self.both)


class Bench:
    """Pictures as views, and heads fitted to some of them and judged by others.

    Splits are worked at in processes: forests can't be fitted in threads, since scikit-learn switches the filters
    of warnings, which all threads share, for every tree.
    """

    def __init__(
        self,
        views: ViewTable,
        disturbed: Mapping[str, ViewTable],
        options: TrainingOptions,
        group_of: Mapping[str, int],
    ) -> None:
        self.views, self.options = views, options.head
        self.plain = views.of_kind(PLAIN)
        self.groups = np.array([group_of[picture] for picture in self.plain.picture])
        self.labels = sorted(set(self.plain.label) - {OTHERS})
        self._processes = options.threads
        position = {name: n for n, name in enumerate(self.plain.picture)}
        self._owner = np.array([position[name] for name in views.picture])
        self._rows = _rows_of(views, position)
        self._disturbed = {name: (found, _rows_of(found, position)) for name, found in disturbed.items()}

    def known(self) -> np.ndarray:
        """Numbers of the pictures of known types."""
        return np.flatnonzero(self.plain.label != OTHERS)

    def random_splits(self, count: int, seed: int) -> list[Split]:
        """Splits of the known pictures, as in the paper."""
        return random_splits(self._labels_of_known(), count, seed)

    def grouped_splits(self, count: int, seed: int) -> list[Split]:
        """Splits of the known pictures that keep near-duplicates together."""
        return grouped_splits(self._labels_of_known(), self.groups[self.known()], count, seed)

    def _labels_of_known(self) -> list[str]:
        return [str(label) for label in self.plain.label[self.known()]]

    def views_of(self, pictures: np.ndarray) -> ViewTable:
        """All views of these pictures."""
        return self.views.where(np.isin(self._owner, pictures))

    def fit(self, pictures: np.ndarray, seed: int) -> FastHead:
        """A head fitted to the pictures, its mix calibrated on a tenth of them by one that had not learnt them."""
        found = self.plain.label[pictures].tolist()
        inner = grouped_splits(found, self.groups[pictures], 1, seed, VALIDATION)[0]
        trial, whole = self._fit(pictures[inner.train]), self._fit(pictures)
        validation = self.views_of(pictures[inner.test])
        targets = head.index_of(validation.label, whole.labels)
        return head.calibrate(whole, trial.evidence(validation), targets, len(inner.test))

    def judge(self, splits: Sequence[Split], name: str, progress: Progress) -> JudgedSplits:
        """Fit and judge on every split of the known pictures."""
        return _joined(self._map(self._judge_split, list(enumerate(splits)), name, progress))

    def new_type(self, repeats: int, progress: Progress) -> dict[str, Any]:
        """Every type in turn is new: ten pictures of it beside all pictures of the others that train."""
        cases = [(label, repeat) for label in self.labels for repeat in range(repeats)]
        rows = self._map(self._teach, cases, "a tenth type", progress)
        recalls = {label: float(np.mean([row[1] for row in rows if row[0] == label])) for label in self.labels}
        return {
            "pictures": NEW_TYPE_PICTURES,
            "repeats": repeats,
            "recall_mean": head.rounded(float(np.mean(list(recalls.values())))),
            "recall": {label: head.rounded(value) for label, value in recalls.items()},
            "lost_on_others": head.rounded(float(np.mean([row[2] - row[3] for row in rows]))),
        }

    def trials(
        self, make: Callable[[open_set.Task], Iterator[open_set.Trial]], count: int, name: str, progress: Progress
    ) -> list[open_set.Trial]:
        """Open-set trials, ``count`` of them, one after the other."""
        made = make(self._task(self.views.of_kind(PLAIN, LOOK), self.groups))
        return [next(made) for _ in progress(name, range(count))]

    def trials_with(self, strangers: ViewTable, progress: Progress) -> list[open_set.Trial]:
        """Trials whose unknown pictures are ``strangers``, in that order; every known picture is judged once."""
        number = np.arange((strangers.kind == PLAIN).sum())
        every = ViewTable.joined([self.views.of_kind(PLAIN, LOOK), strangers.of_kind(PLAIN, LOOK)])
        groups = np.append(self.groups, self.groups.max() + 1 + number)
        made = open_set.strangers_trials(self._task(every, groups), len(self.plain) + number, open_set.TURNS)
        return [next(made) for _ in progress("strangers", range(open_set.TURNS))]

    def _task(self, looks: ViewTable, groups: np.ndarray) -> open_set.Task:
        """Pictures by number, and heads that learn from some of them; those that train are the bench's own."""
        plain, second = looks.of_kind(PLAIN), looks.of_kind(LOOK)

        def outputs(train: np.ndarray, rows: np.ndarray) -> Outputs:
            first = plain.where(rows)
            asked = ViewTable.joined([first, second.where(np.isin(second.picture, first.picture))])
            fitted = self._fit(train)
            return after_second_look(asked, outputs_of(fitted, asked, fitted.evidence(asked)))[1]

        return open_set.Task(plain.label, groups, outputs)

    def _judge_split(self, number: int, split: Split) -> JudgedSplits:
        known = self.known()
        return self._judged(number, self.fit(known[split.train], number), known[split.test])

    def _teach(self, label: str, repeat: int) -> tuple[str, float, float, float]:
        """Recall of the new type, and accuracy on the others before and after it came."""
        known = self.known()
        found = self.plain.label[known].tolist()
        split = grouped_splits(found, self.groups[known], 1, 1000 + repeat)[0]
        train, test = known[split.train], known[split.test]
        old_train, old_test = (rows[self.plain.label[rows] != label] for rows in (train, test))
        own = np.random.default_rng([repeat, 5]).permutation(known[self.plain.label[known] == label])
        taught, asked = _apart(own, self.groups, NEW_TYPE_PICTURES)
        if not len(asked):
            raise ValueError(
                f"{label}: all of its {len(own)} pictures, or their like, are taught; none is left to ask"
            )
        before = self._accuracy(self.fit(old_train, repeat), old_test)
        fitted = self.fit(np.concatenate([old_train, taught]), repeat)
        return label, self._accuracy(fitted, asked), before, self._accuracy(fitted, old_test)

    def _fit(self, pictures: np.ndarray) -> FastHead:
        labels = sorted(set(self.plain.label[pictures]))
        return head.fit_fast_head(self.views_of(pictures), labels, self.options)

    def _accuracy(self, fitted: FastHead, pictures: np.ndarray) -> float:
        targets = head.index_of(self.plain.label[pictures], fitted.labels)
        said = after_doubt(*_looked(fitted, self.views, self._rows, pictures))
        return float((said.argmax(axis=1) == targets).mean())

    def _judged(self, number: int, fitted: FastHead, pictures: np.ndarray) -> JudgedSplits:
        plain = self.plain.where(pictures)
        evidence = fitted.evidence(plain)
        return JudgedSplits(
            np.full(len(pictures), number),
            pictures,
            head.index_of(plain.label, fitted.labels),
            replace(fitted, shares=head.EQUAL).mixed(evidence),
            *_looked(fitted, self.views, self._rows, pictures),
            {name: self._said_of_disturbed(fitted, name, pictures) for name in self._disturbed},
        )

    def _said_of_disturbed(self, fitted: FastHead, name: str, pictures: np.ndarray) -> np.ndarray:
        views, rows = self._disturbed[name]
        there = np.array([picture in rows[PLAIN] for picture in pictures])
        said = np.full(len(pictures), -1)
        if there.any():
            said[there] = after_doubt(*_looked(fitted, views, rows, pictures[there])).argmax(axis=1)
        return said

    def _map(
        self, work: Callable[..., Any], cases: Sequence[tuple[Any, ...]], name: str, progress: Progress
    ) -> list[Any]:
        results = iter(Parallel(self._processes, return_as="generator")(delayed(work)(*case) for case in cases))
        return [next(results) for _ in progress(name, cases)]


def evaluate_type(
    options: TrainingOptions,
    plan: EvaluationPlan,
    chemistry: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """All figures for the photographs in ``options.data``; fractions are 0..1.

    Args:
        options: Data, corrections, backbone and head, as in training.
        plan: How much of it.
        chemistry: Chemistry of each type; None: no figures by chemistry.
        progress: Shows how far it got.

    Raises:
        ConfigurationError: No photographs, or too few to be split.
        ModelError: No weights of the backbone to be had.
    """
    if options.data is None:
        raise ConfigurationError("--data", ["give the folder of photographs, one sub-folder per type"])
    if plan.strangers is not None and not (plan.strangers.is_dir() and find_pictures(plan.strangers).files):
        raise ConfigurationError("--strangers", [f"{plan.strangers} has no sub-folders of pictures, one per kind"])
    clock = _Clock()
    seen = _see(options.data, options, plan, clock, progress)
    bench = Bench(
        seen.corrected,
        {name: _corrected(views, options) for name, views in seen.disturbed.items()},
        options,
        seen.group_of,
    )
    _check_enough(bench, options.data)
    report: dict[str, Any] = {"data": _describe(bench, options), "paper": PAPER, "protocols": {}}
    judged = bench.judge(bench.random_splits(plan.random, options.seed), "random splits", progress)
    report["protocols"]["random"] = protocol_figures(judged, bench, chemistry)
    clock.lap("random")
    judged = bench.judge(bench.grouped_splits(plan.grouped, options.seed), "grouped splits", progress)
    report["protocols"]["grouped"] = protocol_figures(judged, bench, chemistry)
    report["views"] = view_figures(judged)
    if plan.robustness:
        report["robustness"] = robustness_figures(judged)
    clock.lap("grouped")
    report["protocols"] |= _as_published(seen, options, plan, chemistry, progress)
    clock.lap("as_published")
    report["selective"] = selective_figures(bench.views, options, plan.target_purity)
    clock.lap("selective")
    report |= _unknown_figures(bench, seen.strangers, plan, clock, progress)
    if plan.new_type:
        report |= _where_enough("new_type", lambda: bench.new_type(plan.new_type, progress))
        clock.lap("new_type")
    return report | {"seconds": clock.laps}


@dataclass(frozen=True, slots=True)
class _Seen:
    """Views of what is evaluated.

    Attributes:
        published: Of the photographs, with the labels as they were published.
        corrected: The same with corrected labels.
        disturbed: By disturbance, as published.
        strangers: Of no known type; None: none are judged.
        group_of: Near-duplicates of each picture.
    """

    published: ViewTable
    corrected: ViewTable
    disturbed: Mapping[str, ViewTable]
    strangers: ViewTable | None
    group_of: Mapping[str, int]


def _see(folder: Path, options: TrainingOptions, plan: EvaluationPlan, clock: _Clock, progress: Progress) -> _Seen:
    """What the plan wants of the photographs in ``folder`` and of the strangers."""
    maker = TrainingSetup(options, progress).maker()
    listed = data.list_photographs(folder)
    published = maker.photographs(listed)
    clock.lap("views")
    strangers = None
    if plan.strangers is not None:
        strangers = maker.looks(data.list_photographs(plan.strangers), "strangers")
    disturbed = _disturbed_views(maker, listed) if plan.robustness else {}
    clock.lap("disturbed_views")
    corrected = _corrected(published, options)
    group_of = _near_duplicates(listed, published, options, progress)
    return _Seen(published, corrected, disturbed, strangers, group_of)


def protocol_figures(judged: JudgedSplits, bench: Bench, chemistry: Mapping[str, str] | None) -> dict[str, Any]:
    """Accuracy over splits, recall, confusion, calibration, and the pictures that are beyond the model."""
    right = judged.said.argmax(axis=1) == judged.target
    per_split = np.array([right[judged.split == number].mean() for number in np.unique(judged.split)])
    names = bench.plain.picture[judged.picture]
    result: dict[str, Any] = {
        "splits": len(per_split),
        "mean": head.rounded(float(per_split.mean())),
        "best": head.rounded(float(per_split.max())),
        "sd": head.rounded(float(per_split.std(ddof=1))) if len(per_split) > 1 else None,
        "accuracy": head.share(right, names),
        "recall": head.recall(right, judged.target, bench.labels),
        "calibration": {
            "before": head.calibration(judged.equal, judged.target),
            "after": head.calibration(judged.said, judged.target),
        },
        "confusion": _confusion(judged, bench.labels),
        "often_wrong": _often_wrong(right, judged, bench),
    }
    result["worst_recall"] = min(value for value in result["recall"].values() if value is not None)
    if chemistry is not None:
        truth = [bench.labels[target] for target in judged.target]
        said = [bench.labels[label] for label in judged.said.argmax(axis=1)]
        result["chemistry"] = chemistry_errors(truth, said, chemistry).as_dict()
    return result


def view_figures(judged: JudgedSplits) -> dict[str, Any]:
    """What a second look gains: never, where the first left doubt, and always."""
    first = judged.one.max(axis=1)
    result: dict[str, Any] = {}
    for name, sure in (
        ("one look", 0.0),
        *((f"second below {sure:g}", sure) for sure in (0.7, 0.8, 0.9)),
        ("two", 1.01),
    ):
        chosen = after_doubt(judged.one, judged.both, sure)
        result[name] = {
            "accuracy": head.rounded(float((chosen.argmax(axis=1) == judged.target).mean())),
            "views": round(float(1 + (first < sure).mean()), 3),
        }
    return result


def robustness_figures(judged: JudgedSplits) -> dict[str, Any]:
    """Accuracy of disturbed pictures beside that of the same pictures undisturbed, and what was lost."""
    undisturbed = judged.said.argmax(axis=1) == judged.target
    rows: dict[str, dict[str, Any]] = {}
    for name, said in judged.disturbed.items():
        there = said >= 0
        if there.any():
            before, after = float(undisturbed[there].mean()), float((said == judged.target)[there].mean())
            rows[name] = {
                "accuracy": head.rounded(after),
                "loss": head.rounded(before - after),
                "pictures": len(np.unique(judged.picture[there])),
            }
    worst = [rows[name]["loss"] for name in LIGHT if name in rows]
    backgrounds = [rows[name]["accuracy"] for name in BACKGROUNDS if name in rows]
    return {
        "disturbances": rows,
        "worst_loss_in_light": max(worst, default=None),
        "worst_on_backgrounds": min(backgrounds, default=None),
    }


def selective_figures(views: ViewTable, options: TrainingOptions, target: float) -> dict[str, Any]:
    """Purity over coverage by cross-validation, and the threshold for a purity, if the data bear one out.

    ``area_under_risk`` is the mean share of errors over all coverages.

    *Other* pictures count as wrong wherever they are accepted.
    """
    known = views.where(views.label != OTHERS)
    labels = sorted(set(known.label))
    held_out = hold_out(
        known, labels, options.head, picture_folds(known, options.seed, backbone.same_shoot(options.backbone))
    )
    mix, _ = calibrated(known, held_out, labels, options.head)
    rows = held_out.views.kind == PLAIN
    probabilities = mix.mixed(held_out.evidence[:, rows])
    right = probabilities.argmax(axis=1) == head.index_of(held_out.views.label[rows], labels)
    others = views.where((views.label == OTHERS) & (views.kind == PLAIN))
    if len(others):
        probabilities = np.concatenate([probabilities, mix.probabilities(others)])
        right = np.concatenate([right, np.zeros(len(others), bool)])
    curve = selective.purity_coverage(probabilities.max(axis=1), right)
    claim = selective.threshold_for_purity(probabilities.max(axis=1), right, target)
    points = [int(np.argmin(np.abs(curve.coverage - coverage))) for coverage in np.arange(0.1, 1.01, 0.1)]
    return {
        "pictures": curve.pictures,
        "curve": [
            {
                "threshold": head.rounded(float(curve.threshold[n])),
                "coverage": head.rounded(float(curve.coverage[n])),
                "purity": head.rounded(float(curve.purity[n])),
            }
            for n in dict.fromkeys(points)
        ],
        "target_purity": target,
        "threshold": claim.threshold,
        "accepted_without_error_needed": claim.needed,
        "area_under_risk": head.rounded(selective.area_under_risk(curve)),
        "claim": str(claim),
    }


def _as_published(
    seen: _Seen,
    options: TrainingOptions,
    plan: EvaluationPlan,
    chemistry: Mapping[str, str] | None,
    progress: Progress,
) -> dict[str, Any]:
    """Both protocols with the labels as they were published; nothing where nothing was corrected."""
    if options.corrections is None:
        return {}
    bench = Bench(seen.published, {}, options, seen.group_of)
    splits = {
        "random_as_published": bench.random_splits(plan.random, options.seed),
        "grouped_as_published": bench.grouped_splits(min(plan.grouped, 20), options.seed),
    }
    return {
        name: protocol_figures(bench.judge(some, name.replace("_", " "), progress), bench, chemistry)
        for name, some in splits.items()
    }


def _unknown_figures(
    bench: Bench, strangers: ViewTable | None, plan: EvaluationPlan, clock: _Clock, progress: Progress
) -> dict[str, Any]:
    """How pictures of no known type are told, as far as the plan asks and the pictures are enough."""
    figures: dict[str, Any] = {}
    if plan.others:
        figures |= _where_enough("open_set", lambda: _open_set_figures(bench, plan, progress))
        clock.lap("open_set")
    if strangers is not None:
        figures |= _where_enough("strangers", lambda: stranger_figures(bench, plan, strangers, progress))
        clock.lap("strangers")
    return figures


def _where_enough(name: str, figures: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The figures by their name; nothing, and a warning, where pictures are too few for a rule."""
    try:
        return {name: figures()}
    except ValueError as error:
        log.warning("no figures for %s: %s", name.replace("_", " "), error)
        return {}


def _open_set_figures(bench: Bench, plan: EvaluationPlan, progress: Progress) -> dict[str, Any]:
    """The *Other* pictures, and every type left out, judged by all methods."""
    repeats = max(1, plan.others // 10)
    result = {}
    if (bench.plain.label == OTHERS).sum() >= 4:
        trials = bench.trials(
            lambda task: open_set.others_trials(task, plan.others), plan.others, "others", progress
        )
        result["other_pictures"] = open_set.judge(trials, open_set.METHODS, plan.false_reject)
        count = repeats * len(bench.labels)
        trials = bench.trials(
            lambda task: open_set.left_out_trials(task, repeats), count, "types left out", progress
        )
        result["type_left_out"] = open_set.judge(trials, open_set.METHODS, plan.false_reject)
    return {name: {method: _open_set_row(row) for method, row in rows.items()} for name, rows in result.items()}


def stranger_figures(
    bench: Bench, plan: EvaluationPlan, strangers: ViewTable, progress: Progress
) -> dict[str, Any]:
    """How many of each kind of stranger are turned away: by the rule that training would fit, and by simpler ones.

    ``caught`` includes the share ``nothing_seen``, which the classifier refuses before any rule; AUROC is that of
    the others.
    """
    seen = strangers.of_kind(PLAIN)
    trials = bench.trials_with(strangers, progress) if len(seen) else []
    learnt = open_set.best_method(bool((bench.plain.label == OTHERS).any()), bool(bench.plain.text.any()))
    result = {}
    for kind in sorted(set(strangers.label)):
        own, number = seen.label == kind, len(set(strangers.picture[strangers.label == kind]))
        nothing = 1 - own.sum() / number
        rows: dict[str, Any] = {}
        if own.any():
            judged = [replace(trial, unknown=trial.unknown.where(own)) for trial in trials]
            for method, row in open_set.judge(judged, (learnt, "max_probability"), plan.false_reject).items():
                rows[method] = {
                    "auroc": head.rounded(row.auroc),
                    "caught": head.rounded(nothing + (1 - nothing) * row.caught),
                    "false_reject": head.rounded(row.false_reject),
                }
        result[str(kind)] = {"pictures": number, "nothing_seen": head.rounded(float(nothing)), "methods": rows}
    return result


def _open_set_row(row: open_set.MethodScores) -> dict[str, Any]:
    figures = {
        name: head.rounded(getattr(row, name))
        for name in ("auroc", "auroc_sd", "caught", "caught_sd", "false_reject", "false_ejects")
    }
    return figures | {"known": row.known, "unknown": row.unknown, "caught_by": row.caught_by}


def _near_duplicates(
    listed: Sequence[Photograph], views: ViewTable, options: TrainingOptions, progress: Progress
) -> dict[str, int]:
    """Group of each picture, as the backbone sees them before it was adapted.

    Adapting draws pictures of one type together, and what is alike then need not be of one shoot. So splits are the
    same whichever of the two is judged.
    """
    plain = views.of_kind(PLAIN)
    pretrained = backbone.pretrained(options.backbone)
    if pretrained != options.backbone:
        before = TrainingSetup(replace(options, backbone=pretrained, weights=None), progress)
        plain = before.maker().looks(listed, "near-duplicates").of_kind(PLAIN, NOTHING)
    groups = head.group_near_duplicates(plain.features, backbone.same_shoot(pretrained))
    return dict(zip(plain.picture.tolist(), groups.tolist(), strict=True))


def _disturbed_views(maker: ViewMaker, listed: Sequence[Photograph]) -> dict[str, ViewTable]:
    made = {name: maker.disturbed(listed, name) for name in data.DISTURBANCES}
    return {name: views for name, views in made.items() if views is not None}


def _corrected(views: ViewTable, options: TrainingOptions) -> ViewTable:
    """The views with corrected labels, less those of pictures that are dropped."""
    assert options.data is not None
    if options.corrections is None:
        return views
    listed = data.list_photographs(options.data, options.corrections)
    label_of = {photograph.name: photograph.label for photograph in listed}
    kept = views.where(np.array([name in label_of for name in views.picture]))
    return replace(kept, label=np.array([label_of[name] for name in kept.picture], object))


def _check_enough(bench: Bench, folder: Path) -> None:
    counts = Counter(bench.plain.label[bench.known()])
    poor = [f"{label}: {count} picture(s); a split takes 2" for label, count in sorted(counts.items()) if count < 2]
    if poor or len(counts) < 2:
        raise ConfigurationError(str(folder), poor or ["two types are the least that can be told apart"])


def _describe(bench: Bench, options: TrainingOptions) -> dict[str, Any]:
    counts = Counter(bench.plain.label)
    return {
        "folder": str(options.data),
        "corrections": None if options.corrections is None else options.corrections.source,
        "pictures": len(bench.plain),
        "groups_of_near_duplicates": len(np.unique(bench.groups)),
        "per_label": {str(label): count for label, count in sorted(counts.items())},
        "backbone": options.backbone,
    }


Rows: TypeAlias = "dict[str, dict[int, int]]"
"""Row of each picture's view, by kind and number of the picture."""


def _rows_of(views: ViewTable, position: Mapping[str, int]) -> Rows:
    return {
        kind: {position[views.picture[row]]: int(row) for row in np.flatnonzero(views.kind == kind)}
        for kind in (PLAIN, LOOK)
    }


def after_doubt(one: np.ndarray, both: np.ndarray, sure: float = SURE) -> np.ndarray:
    """``one`` (m, L) where it is sure, else ``both``: what the classifier goes by."""
    return np.where(one.max(axis=1, keepdims=True) < sure, both, one)


def _looked(fitted: FastHead, views: ViewTable, rows: Rows, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (m, L) after the first look, and the mean with the second where there is one."""
    one = fitted.probabilities(views.where(np.array([rows[PLAIN][picture] for picture in pictures])))
    both = one.copy()
    again = [n for n, picture in enumerate(pictures) if picture in rows[LOOK]]
    if again:
        second = fitted.probabilities(views.where(np.array([rows[LOOK][picture] for picture in pictures[again]])))
        both[again] = (one[again] + second) / 2
    return one, both


def _confusion(judged: JudgedSplits, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """``confusion[true][said]`` over all test pictures of all splits."""
    said = judged.said.argmax(axis=1)
    return {
        label: {labels[k]: int(n) for k, n in Counter(said[judged.target == row].tolist()).most_common()}
        for row, label in enumerate(labels)
    }


def _often_wrong(right: np.ndarray, judged: JudgedSplits, bench: Bench) -> list[dict[str, Any]]:
    """Pictures that were wrong in half of their tests or more, the most certain first."""
    rows = []
    for picture in np.unique(judged.picture[~right]):
        own = judged.picture == picture
        if right[own].mean() <= 0.5:
            said = Counter(judged.said[own].argmax(axis=1).tolist()).most_common(1)[0][0]
            rows.append(
                {
                    "picture": str(bench.plain.picture[picture]),
                    "tests": int(own.sum()),
                    "wrong": int((~right[own]).sum()),
                    "said": bench.labels[said],
                }
            )
    return sorted(rows, key=lambda row: (-row["wrong"] / row["tests"], -row["tests"]))


def _apart(pictures: np.ndarray, groups: np.ndarray, taught: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures to be taught, in the order given, and the others without near-duplicates of those."""
    first = pictures[:taught]
    rest = pictures[taught:]
    apart = rest[~np.isin(groups[rest], groups[first])]
    return first, apart if len(apart) else rest


def _joined(parts: Sequence[JudgedSplits]) -> JudgedSplits:
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("split", "picture", "target", "equal", "one", "both")
    }
    names = parts[0].disturbed
    return JudgedSplits(
        **arrays, disturbed={name: np.concatenate([part.disturbed[name] for part in parts]) for name in names}
    )


class _Clock:
    """Seconds that each part took."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 1)
        self._last = now
