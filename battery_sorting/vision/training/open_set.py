"""Fits the rules that tell unknown types, and judges them on pictures that neither model nor rule has seen."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd

from battery_sorting.core.types import OTHERS
from battery_sorting.vision import defect_figures
from battery_sorting.vision.likeness import alike, root_histogram, standardised, unit, weighted_text
from battery_sorting.vision.open_set import (
    Background,
    ColourNeighbours,
    Conformal,
    Disagreement,
    Energy,
    LookAndColour,
    LookColourText,
    Mahalanobis,
    MaxProbability,
    Neighbours,
    OpenSetRule,
    Outputs,
    ReadingZone,
    Score,
    ScorePart,
    Surprise,
    UnknownWords,
)
from battery_sorting.vision.training.coreset import farthest_first

FALSE_REJECT = 0.05
FOLDS = 10
"""Of the cross-fitted scores that set the threshold: with fewer, it comes out too high."""
TURNS = 5
"""Folds of the cross-validation that judges; so many splits judge every picture once."""
PAPER_THRESHOLD = 0.8
SHRINKAGE = 0.3
COMPONENTS = 40
BACKGROUND_C = 10.0
RIDGE = 0.2
COLOUR_WIDTH = 0.25
TEXT_COUNTS = 2.0
"""Share of what is printed in the kernel, beside 1 each for look and colours."""
MOST_REFERENCES = 3000
"""Pictures that a rule keeps at most, so that its file stays below 2 MB; more are drawn from at random."""
MOST_COLOURS = 600
"""The same for comparing colours alone; these are chosen so that the others are near one of them."""
OFTEN = 8.0
"""A type knows a piece of a word that one in so many of its pictures shows; rarer ones less."""
LEFT_UNREAD = 0.5
"""Share of known batteries that look so well known that what is printed on them isn't read: reading takes time."""
BEYOND_READING = 0.02
"""Share of known batteries that look so strange that it isn't read, either."""

SIGNS = {"energy": 0.4, "mahalanobis": 0.3, "colour_neighbours": 0.6, "disagreement": 0.4}
"""Scores that need no pictures of unknown batteries, and how much each counts beside one that learns from them."""
WORDS = {"unknown_words": 0.6}
"""The same, where what is printed was read."""
METHODS: dict[str, dict[str, float]] = {
    **{
        name: dict.fromkeys(name.split("+"), 1.0)
        for name in (
            "max_probability",
            "energy",
            "energy+neighbours",
            "mahalanobis",
            "conformal",
            "colour_neighbours",
            "background",
            "look_and_colour",
            "look_colour_text",
            "surprise+colour_neighbours",
            "surprise+look_and_colour",
        )
    },
    "signs": SIGNS,
    "signs+words": SIGNS | WORDS,
    "look_and_colour+signs": {"look_and_colour": 1.0} | SIGNS,
    "look_colour_text+signs+words": {"look_colour_text": 1.0} | SIGNS | WORDS,
}
"""Methods by name: scores that are scaled and summed up, and by how much each counts."""
BEST_METHOD = "look_colour_text+signs+words"
WITHOUT_READING = "look_and_colour+signs"
"""What to take where nothing was read."""
WITHOUT_BACKGROUND = "signs+words"
"""What to take where there are no pictures of unknown batteries to learn from."""
WITHOUT_BOTH = "signs"


def best_method(background: bool, read: bool) -> str:
    """What to take where there are pictures of unknown batteries, and where what is printed on all was read."""
    if background:
        return BEST_METHOD if read else WITHOUT_READING
    return WITHOUT_BACKGROUND if read else WITHOUT_BOTH


@dataclass(frozen=True, slots=True)
class Material:
    """What scores are fitted on.

    ``known``: outputs for pictures of known types. Their probabilities and logits must come from models that had
    not learnt from the picture (cross-validation), else the rule takes certainty by heart for being known.
    ``types``: their types' numbers (n,). ``background``: outputs for pictures of unknown batteries, may be empty.
    """

    known: Outputs
    types: np.ndarray
    background: Outputs

    def where(self, rows: np.ndarray) -> Material:
        """Those known pictures alone, and all of the background."""
        return Material(self.known.where(rows), self.types[rows], self.background)

    @property
    def labels(self) -> int:
        """Number of known types."""
        return int(self.known.probabilities.shape[1])

    def both(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Embeddings, colours and numbers of known pictures and background together, whose number is `labels`."""
        embedding = np.concatenate([self.known.embedding, self.background.embedding])
        colour = np.concatenate([self.known.colour, self.background.colour])
        return embedding, colour, np.append(self.types, np.full(len(self.background), self.labels))


def fit_rule(
    material: Material,
    folds: np.ndarray,
    method: str = BEST_METHOD,
    false_reject: float = FALSE_REJECT,
    sources: np.ndarray | None = None,
) -> OpenSetRule:
    """The rule by ``method`` that gives up a share of ``false_reject`` (0..1) of the known pictures.

    The threshold is that of split conformal prediction, on *cross-fitted* scores: each known picture is scored by
    scores fitted without its fold, whereas the rule is then fitted on all. The rule sees a little more than those
    that set its threshold, so it gives up slightly less than asked for; `judge` measures how much.

    Args:
        material: What to learn from.
        folds: (n,) fold of each known picture: that of the model its probabilities come from.
        method: One of `METHODS`.
        false_reject: Share of known batteries that may go to *others*.
        sources: (n,) where each known picture comes from (photographs, belt, …): the threshold is that which the
            hardest source needs by itself. None: one source.

    Raises:
        ValueError: No such method; a score needs a background and there is none; all known pictures are in one
            fold; fewer of them than a threshold for that share takes.
    """
    if len(np.unique(folds)) < 2:
        raise ValueError("folds: all known pictures are in one, so nothing is left to judge them by")
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is none; known are {', '.join(METHODS)}")
    weights = METHODS[method]
    scores = [_fitter(name, material) for name in weights]
    held_out = [_cross_fitted(fit, material, folds) for fit in scores]
    groups = [np.ones(len(folds), bool)] if sources is None else [sources == one for one in np.unique(sources)]
    scales = [
        _centre_and_scale([values[group] for group in groups], weight)
        for (values, _), weight in zip(held_out, weights.values(), strict=True)
    ]
    parts = tuple(ScorePart(fit(material), *scale) for fit, scale in zip(scores, scales, strict=True))
    read, unread = (
        np.sum([(values - centre) / scale for values, (centre, scale) in zip(of, scales, strict=True)], axis=0)
        for of in zip(*held_out, strict=True)
    )
    zone = None
    if any(isinstance(part.score, LookColourText | UnknownWords) for part in parts):
        zone = ReadingZone(
            above=_hardest(unread, groups, LEFT_UNREAD), below=_hardest(unread, groups, 1 - BEYOND_READING)
        )
        read = np.where(zone.holds(unread), read, unread)
    return OpenSetRule(parts, max(conformal_threshold(read[group], false_reject) for group in groups), zone)


def _hardest(novelty: np.ndarray, groups: Iterable[np.ndarray], share: float) -> float:
    """The novelty that at least ``share`` of the pictures of each group don't exceed."""
    return max(float(np.quantile(novelty[group], share)) for group in groups)


def conformal_threshold(novelty: np.ndarray, false_reject: float) -> float:
    """The ⌈(n + 1)(1 − false_reject)⌉-th smallest: at most that share of further known pictures lies above it.

    Raises:
        ValueError: With so few pictures no threshold promises that.
    """
    rank = int(np.ceil((len(novelty) + 1) * (1 - false_reject) - 1e-9))
    if rank > len(novelty):
        needed = int(np.ceil(1 / false_reject - 1e-9)) - 1
        raise ValueError(
            f"false_reject: {false_reject:g} takes at least {needed} pictures of known types, "
            f"there are {len(novelty)}"
        )
    return float(np.sort(novelty)[rank - 1])


def _cross_fitted(
    fit: Callable[[Material], Score], material: Material, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n,) of the known pictures, each fitted without its fold: as it was read, and as if nobody had."""
    read, unread = np.empty(len(material.known)), np.empty(len(material.known))
    for fold in np.unique(folds):
        score, known = fit(material.where(folds != fold)), material.known.where(folds == fold)
        read[folds == fold], unread[folds == fold] = score(known), score(replace(known, text=None))
    return read, unread


def _centre_and_scale(groups: list[np.ndarray], weight: float) -> tuple[float, float]:
    """Median, and the distance of the deciles over the weight with which the score counts.

    Both of the source of pictures whose deciles are farthest apart: it also sets the threshold.
    """
    deciles = np.array([np.quantile(values, (0.1, 0.5, 0.9)) for values in groups])
    low, middle, high = deciles[np.argmax(deciles[:, 2] - deciles[:, 0])]
    return float(middle), (float(high - low) or 1.0) / weight


def _fitter(name: str, material: Material) -> Callable[[Material], Score]:
    if name in NEED_BACKGROUND and not len(material.background):
        raise ValueError(
            f"method: {name!r} learns from pictures of unknown batteries and there are none; add a folder 'Other' "
            f"or take {WITHOUT_BACKGROUND!r} or {WITHOUT_BOTH!r}"
        )
    return FITTERS[name]


def _fit_neighbours(material: Material) -> Neighbours:
    mean, spread = _moments(material.known.embedding)
    kept = _drawn(len(material.types))
    return Neighbours(
        standardised(material.known.embedding[kept], mean, spread), material.types[kept], mean, spread
    )


def _fit_colour_neighbours(material: Material) -> ColourNeighbours:
    colours = root_histogram(material.known.colour)
    kept = np.sort(farthest_first(colours, min(MOST_COLOURS, len(colours))))
    return ColourNeighbours(colours[kept], material.types[kept])


def _fit_mahalanobis(material: Material) -> Mahalanobis:
    rows = unit(material.known.embedding)
    mean = rows.mean(axis=0)
    _, strength, axes = randomized_svd(rows - mean, min(COMPONENTS, *rows.shape), random_state=0)
    axes = axes[strength > strength[0] * 1e-5].T
    at = (rows - mean) @ axes
    centres = np.array([_mean_or_zero(at[material.types == label]) for label in range(material.labels)])
    within = at - centres[material.types]
    covariance = within.T @ within / len(rows)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(
        len(covariance)
    )
    values, vectors = np.linalg.eigh(shrunk)
    whiten = vectors / np.sqrt(values)
    return Mahalanobis(mean, (axes @ whiten).astype(np.float32), (centres @ whiten).astype(np.float32))


def _mean_or_zero(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1]))


def _fit_conformal(material: Material) -> Conformal:
    probabilities = material.known.probabilities
    return Conformal(1.0 - probabilities[np.arange(len(probabilities)), material.types], material.types)


def _fit_unknown_words(material: Material) -> UnknownWords:
    shown = material.known.read() > 0
    legible = shown.any(axis=1)
    familiar = np.zeros((material.labels, shown.shape[1]), np.float32)
    for label in range(material.labels):
        own = legible & (material.types == label)
        if own.any():
            familiar[label] = np.minimum(1.0, OFTEN * shown[own].mean(axis=0))
    return UnknownWords(familiar)


def _fit_background(material: Material) -> Background:
    embedding, _, numbers = material.both()
    mean, spread = _moments(embedding)
    rows = standardised(embedding, mean, spread)
    # The penalty only sees the span of the rows: where they are few, the fit takes a tenth of the time in it.
    few = len(rows) < rows.shape[1]
    axes = np.linalg.svd(rows, full_matrices=False)[2] if few else np.eye(rows.shape[1], dtype=rows.dtype)
    model = LogisticRegression(C=BACKGROUND_C, max_iter=500).fit(rows @ axes.T, numbers)
    weight = np.zeros((material.labels + 1, rows.shape[1]), np.float32)
    bias = np.full(material.labels + 1, -1e3, np.float32)
    if len(model.classes_) == 2:  # one row for two classes
        weight[model.classes_[1]], bias[model.classes_] = model.coef_[0] @ axes, (0.0, model.intercept_[0])
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_ @ axes, model.intercept_
    return Background(mean, spread, weight, bias)


def _fit_look_and_colour(material: Material) -> LookAndColour:
    return LookAndColour(**_kernel_regression(material)[0])


def _fit_look_colour_text(material: Material) -> LookColourText:
    read = np.concatenate([material.known.read(), material.background.read()]).astype(np.float32)
    # A piece counts by the pictures that it stands on (inverse document frequency, Spärck Jones 1972).
    rarity = np.log((1 + len(read)) / (1 + (read > 0).sum(axis=0))).astype(np.float32)
    rows = weighted_text(read, rarity)
    fields, text_weight = _kernel_regression(material, rows)
    return LookColourText(**fields, rarity=rarity, text_weight=text_weight)


def _kernel_regression(
    material: Material, text: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a `Likeness` to types and background is made of, and its weights (h, L) of rows of text (m, h)."""
    embedding, colour, numbers = material.both()
    kept = _drawn(len(numbers))
    embedding, colour, numbers = embedding[kept], colour[kept], numbers[kept]
    text = np.zeros((len(kept), 1), np.float32) if text is None else text[kept]
    mean, spread = _moments(embedding)
    rows, reference = standardised(embedding, mean, spread), root_histogram(colour)
    kernel = alike(rows, reference, COLOUR_WIDTH) + TEXT_COUNTS * text @ text.T
    targets = (numbers[:, None] == np.arange(material.labels + 1)).astype(np.float64)
    bias = targets.mean(axis=0)
    factor = np.linalg.solve(kernel + RIDGE * np.eye(len(kernel)), targets - bias).astype(np.float32)
    fields = {
        "mean": mean,
        "spread": spread,
        "weight": rows.T @ factor,
        "reference": reference,
        "factor": factor,
        "bias": bias.astype(np.float32),
        "width": np.array(COLOUR_WIDTH),
    }
    return fields, TEXT_COUNTS * text.T @ factor


def _drawn(rows: int) -> np.ndarray:
    """Numbers of the rows that are kept."""
    if rows <= MOST_REFERENCES:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, MOST_REFERENCES, replace=False))


def _moments(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of unit embeddings; a column that hardly varies is not blown up."""
    rows = unit(embedding)
    spread = rows.std(axis=0)
    return rows.mean(axis=0), np.maximum(spread, 1e-2 * spread.mean() + 1e-9)


FITTERS: dict[str, Callable[[Material], Score]] = {
    "max_probability": lambda _: MaxProbability(),
    "surprise": lambda _: Surprise(),
    "energy": lambda _: Energy(),
    "neighbours": _fit_neighbours,
    "colour_neighbours": _fit_colour_neighbours,
    "mahalanobis": _fit_mahalanobis,
    "conformal": _fit_conformal,
    "disagreement": lambda _: Disagreement(),
    "unknown_words": _fit_unknown_words,
    "background": _fit_background,
    "look_and_colour": _fit_look_and_colour,
    "look_colour_text": _fit_look_colour_text,
}
NEED_BACKGROUND = frozenset({"background", "look_and_colour", "look_colour_text"})


@dataclass(frozen=True, slots=True)
class Task:
    """Pictures to judge by, and the type model that is trained on a part of them again and again.

    ``labels`` (n,) with `OTHERS` for unknown batteries, ``groups`` (n,) of near-duplicates. ``model(train, rows)``
    trains on the pictures ``train`` (numbers, known types only) and gives its outputs for ``rows``; its types are
    the sorted labels of ``train``.
    """

    labels: np.ndarray
    groups: np.ndarray
    model: Callable[[np.ndarray, np.ndarray], Outputs]


@dataclass(frozen=True, slots=True)
class Trial:
    """One split, ready for any method: what the rule may learn from, and what it is judged by."""

    material: Material
    folds: np.ndarray
    known: Outputs
    unknown: Outputs
    name: str = ""


def others_trials(task: Task, splits: int = 20, seed: int = 0) -> Iterator[Trial]:
    """Protocol *other pictures*: half of them are background, the other half is judged, never one group in both."""
    known, others = _known(task), np.flatnonzero(task.labels == OTHERS)
    for number, (train, test) in enumerate(_splits(task, known, splits, seed)):
        background, unknown = _halves(others, task.groups, np.random.default_rng([seed, number, 41]))
        yield _trial(task, train, test, unknown, background, seed)


def left_out_trials(task: Task, splits: int = 1, seed: int = 0) -> Iterator[Trial]:
    """Protocol *leave one type out*, for each type: unknown to model and rule, which have all other pictures."""
    known, others = _known(task), np.flatnonzero(task.labels == OTHERS)
    for label in np.unique(task.labels[known]):
        unknown = known[task.labels[known] == label]
        for train, test in _splits(task, known[task.labels[known] != label], splits, seed):
            yield _trial(task, train, test, unknown, others, seed, str(label))


def strangers_trials(task: Task, strangers: np.ndarray, splits: int = 5, seed: int = 0) -> Iterator[Trial]:
    """Protocol for whatever else may lie on the belt, unknown brands or junk: pictures numbered ``strangers``."""
    known = np.setdiff1d(_known(task), strangers)
    background = np.setdiff1d(np.flatnonzero(task.labels == OTHERS), strangers)
    for train, test in _splits(task, known, splits, seed):
        yield _trial(task, train, test, strangers, background, seed)


def cross_fitted(task: Task, train: np.ndarray, seed: int = 0) -> tuple[Outputs, np.ndarray]:
    """Outputs for the pictures ``train``, each by a model that had not learnt from its fold, and the folds."""
    types = np.unique(task.labels[train])
    folds = _folds(task, train, FOLDS, seed)
    pieces, order = [], []
    for fold in np.unique(folds):
        learnt, held_out = train[folds != fold], np.flatnonzero(folds == fold)
        outputs = task.model(learnt, train[held_out])
        pieces.append(_spread_over(outputs, np.searchsorted(types, np.unique(task.labels[learnt])), len(types)))
        order.append(held_out)
    return join(pieces).where(np.argsort(np.concatenate(order))), folds


def join(pieces: Iterable[Outputs]) -> Outputs:
    """Outputs one after the other."""
    return functools.reduce(Outputs.joined, pieces)


def _spread_over(outputs: Outputs, columns: np.ndarray, types: int) -> Outputs:
    """Outputs of a model that knew only some of the types."""
    if len(columns) == types:
        return outputs
    probabilities = np.zeros((len(outputs), types))
    logits = np.full((len(outputs), types), -1e3)
    probabilities[:, columns], logits[:, columns] = outputs.probabilities, outputs.logits
    return replace(outputs, probabilities=probabilities, logits=logits)


def _trial(
    task: Task,
    train: np.ndarray,
    test: np.ndarray,
    unknown: np.ndarray,
    background: np.ndarray,
    seed: int,
    name: str = "",
) -> Trial:
    asked = np.concatenate([test, unknown, background])
    outputs = task.model(train, asked)
    part = np.repeat([0, 1, 2], [len(test), len(unknown), len(background)])
    held_out, folds = cross_fitted(task, train, seed)
    labels = task.labels[train]
    types = np.searchsorted(np.unique(labels), labels)
    return Trial(
        Material(held_out, types, outputs.where(part == 2)),
        folds,
        outputs.where(part == 0),
        outputs.where(part == 1),
        name,
    )


def _known(task: Task) -> np.ndarray:
    return np.flatnonzero(task.labels != OTHERS)


def _splits(task: Task, rows: np.ndarray, splits: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pictures that train and that judge, by repeated grouped cross-validation.

    Random 80/20 splits would never judge a group too large for a fifth of its type. Such shoots are often the hard
    ones, so the false reject would look better than it is.
    """
    for number in range(splits):
        repeat, turn = divmod(number, TURNS)
        fold = _folds(task, rows, TURNS, seed + repeat)
        yield rows[fold != turn], rows[fold == turn]


def _folds(task: Task, rows: np.ndarray, folds: int, seed: int) -> np.ndarray:
    # Imported here, for it needs torch, which the rules themselves don't.
    from battery_sorting.vision.training.head import assign_folds

    return assign_folds(task.groups[rows], [str(label) for label in task.labels[rows]], folds, seed)


def _halves(rows: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    order = rng.permutation(np.unique(groups[rows]))
    sizes = np.cumsum([(groups[rows] == group).sum() for group in order])
    first = np.isin(groups[rows], order[sizes <= (len(rows) + 1) // 2])
    return rows[first], rows[~first]


@dataclass(frozen=True, slots=True)
class MethodScores:
    """How a method did over all trials; shares 0..1.

    ``auroc`` and ``caught`` with their standard deviations over the splits; ``false_reject`` as it turned out on
    the test pictures; ``known`` and ``unknown`` are pictures judged, over all trials. ``caught_by`` names the
    share caught of each trial's name (the left-out type).
    """

    auroc: float
    auroc_sd: float
    caught: float
    caught_sd: float
    false_reject: float
    known: int
    unknown: int
    caught_by: dict[str, float]

    @property
    def false_ejects(self) -> float:
        """Unknown batteries that go into a product bin."""
        return 1.0 - self.caught


def judge(
    trials: Iterable[Trial], methods: Iterable[str], false_reject: float = FALSE_REJECT
) -> dict[str, MethodScores]:
    """Each method's figures, and under ``paper`` those of the BatSort paper's rule: best probability < 80 %.

    Rule and threshold are made anew in every trial, without its test pictures.
    """
    listed = list(trials)
    judged = {}
    for method in methods:
        judged[method] = _judge(
            listed, [fit_rule(trial.material, trial.folds, method, false_reject) for trial in listed]
        )
    paper = OpenSetRule((ScorePart(MaxProbability(), 0.0, 1.0),), 1 - PAPER_THRESHOLD)
    return judged | {"paper": _judge(listed, [paper] * len(listed))}


def _judge(trials: list[Trial], rules: list[OpenSetRule]) -> MethodScores:
    rows = []
    caught_by: dict[str, list[float]] = {}
    for trial, rule in zip(trials, rules, strict=True):
        known, unknown = rule.novelty(trial.known), rule.novelty(trial.unknown)
        caught = float((unknown > rule.threshold).mean())
        rows.append((auroc(known, unknown), caught, (known > rule.threshold).sum(), len(known), len(unknown)))
        if trial.name:
            caught_by.setdefault(trial.name, []).append(caught)
    areas, caughts, rejected, known_count, unknown_count = np.array(rows, float).T
    return MethodScores(
        auroc=float(areas.mean()),
        auroc_sd=float(areas.std()),
        caught=float(caughts.mean()),
        caught_sd=float(caughts.std()),
        false_reject=float(rejected.sum() / known_count.sum()),
        known=int(known_count.sum()),
        unknown=int(unknown_count.sum()),
        caught_by={name: float(np.mean(values)) for name, values in caught_by.items()},
    )


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Chance that of two pictures the unknown one has the higher novelty, ties count half."""
    is_unknown = np.repeat([False, True], [len(known), len(unknown)])
    area = defect_figures.auroc(np.concatenate([known, unknown]), is_unknown)
    return float("nan") if area is None else area
