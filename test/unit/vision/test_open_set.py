"""Rules that tell unknown types: scores, thresholds, protocols, and the file they are kept in."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("sklearn") is None:
    pytest.skip("needs requirements/train.txt", allow_module_level=True)
pytest.importorskip("torch")

from battery_sorting.core.errors import ModelError
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.open_set import (
    SCORES,
    ColourNeighbours,
    Disagreement,
    OpenSetCard,
    Outputs,
    Surprise,
    UnknownWords,
    read_rule,
)
from battery_sorting.vision.reading import TEXT_FEATURES
from battery_sorting.vision.training.coreset import farthest_first
from battery_sorting.vision.training.open_set import (
    BEST_METHOD,
    METHODS,
    WITHOUT_BACKGROUND,
    Material,
    Task,
    auroc,
    conformal_threshold,
    fit_rule,
    judge,
    left_out_trials,
    others_trials,
    strangers_trials,
)

TYPES, WIDTH, COLOURS = 4, 24, 10
CENTRES = np.random.default_rng(1).normal(size=(TYPES + 3, WIDTH))
PALETTES = np.random.default_rng(2).dirichlet(np.ones(COLOURS), TYPES + 3)


def pictures(kinds: np.ndarray, seed: int, noise: float = 0.45) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and colours of pictures of each kind; kinds from TYPES on are of no known type."""
    rng = np.random.default_rng(seed)
    embedding = CENTRES[kinds] + noise * rng.normal(size=(len(kinds), WIDTH))
    colour = np.array([rng.dirichlet(80 * PALETTES[kind] + 0.1) for kind in kinds])
    return embedding, colour


def outputs(kinds: np.ndarray, seed: int, types: int = TYPES) -> Outputs:
    """What a model says that knows the types' centres."""
    embedding, colour = pictures(kinds, seed)
    return outputs_of(embedding, colour, CENTRES[:types])


def outputs_of(embedding: np.ndarray, colour: np.ndarray, centres: np.ndarray) -> Outputs:
    logits = 4 * embedding @ centres.T / WIDTH
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Outputs(exponent / exponent.sum(axis=1, keepdims=True), logits, embedding, colour)


def material(pictures_per_type: int = 60, background: int = 30) -> tuple[Material, np.ndarray]:
    types = np.repeat(np.arange(TYPES), pictures_per_type)
    strange = np.full(background, TYPES)
    return Material(outputs(types, 3), types, outputs(strange, 4)), np.arange(len(types)) % 5


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tells_unknown_pictures_and_keeps_its_false_reject(method):
    learnt, folds = material(150)
    rule = fit_rule(learnt, folds, method)
    known = rule.novelty(outputs(np.repeat(np.arange(TYPES), 500), 5))
    unknown = rule.novelty(outputs(np.full(500, TYPES + 1), 6))
    assert auroc(known, unknown) > 0.9
    # 600 pictures set the threshold: 5 % ± 0.9, and a little for the scores fitted on fewer.
    assert 0.02 < (known > rule.threshold).mean() < 0.08


def test_an_unknown_kind_that_stood_in_the_background_is_caught_better():
    learnt, folds = material()
    rule = fit_rule(learnt, folds, "background")
    seen = rule.novelty(outputs(np.full(200, TYPES), 7))
    assert (seen > rule.threshold).mean() > 0.95


def test_a_rule_comes_back_from_its_file_as_it_was(tmp_path):
    learnt, folds = material()
    for method in METHODS:
        rule = fit_rule(learnt, folds, method)
        path = tmp_path / f"{method}.npz"
        path.write_bytes(rule.to_bytes())
        again = read_rule(path, OpenSetCard(method=rule.method, threshold=rule.threshold, false_reject=0.05))
        probe = outputs(np.repeat(np.arange(TYPES + 2), 20), 8)
        np.testing.assert_allclose(again.novelty(probe), rule.novelty(probe), atol=5e-3)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", None])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, content):
    path = tmp_path / "open_set.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"open_set\.npz.*train the model again"):
        read_rule(path, OpenSetCard(method="energy", threshold=0.0, false_reject=0.05))


def test_a_file_of_another_method_than_the_cards_is_refused(tmp_path):
    learnt, folds = material()
    path = tmp_path / "open_set.npz"
    path.write_bytes(fit_rule(learnt, folds, "energy").to_bytes())
    with pytest.raises(ModelError, match="method"):
        read_rule(path, OpenSetCard(method="conformal", threshold=0.0, false_reject=0.05))


def test_a_file_whose_arrays_are_missing_is_refused(tmp_path):
    path = tmp_path / "open_set.npz"
    np.savez(path, scores=np.array(["background"]), centre=np.zeros(1), scale=np.ones(1))
    with pytest.raises(ModelError, match="mean"):
        read_rule(path, OpenSetCard(method="background", threshold=0.0, false_reject=0.05))


def test_one_picture_is_judged_as_among_many_and_in_no_time():
    learnt, folds = material()
    rule = fit_rule(learnt, folds, BEST_METHOD)
    probe = outputs(np.array([0, TYPES + 1]), 9)
    novelty = rule.novelty(probe)
    for n in range(2):
        one = probe.probabilities[n], probe.logits[n], probe.embedding[n], probe.colour[n]
        value, strange = rule.judge(*one)
        assert value == pytest.approx(novelty[n], abs=1e-4)
        assert strange == (novelty[n] > rule.threshold)
    taken = []
    for _ in range(50):
        started = time.perf_counter()
        rule.judge(*one)
        taken.append(time.perf_counter() - started)
    assert min(taken) < 1e-3


def test_outputs_that_are_no_numbers_are_unknown():
    learnt, folds = material()
    rule = fit_rule(learnt, folds, "energy")
    probe = outputs(np.array([0]), 10)
    nan = np.full(TYPES, np.nan)
    assert rule.judge(probe.probabilities[0], nan, probe.embedding[0], probe.colour[0]) == (np.inf, True)


def test_the_threshold_is_the_conformal_one():
    assert conformal_threshold(np.arange(19.0), 0.05) == 18.0
    assert conformal_threshold(np.arange(99.0), 0.05) == 94.0
    with pytest.raises(ValueError, match="at least 19"):
        conformal_threshold(np.arange(18.0), 0.05)


def test_pictures_that_are_all_in_one_fold_are_refused():
    learnt, folds = material()
    with pytest.raises(ValueError, match="all known pictures are in one"):
        fit_rule(learnt, np.zeros_like(folds), "energy")


def test_without_a_background_the_remedy_is_named_and_works():
    learnt, folds = material(background=0)
    with pytest.raises(ValueError, match="Other"):
        fit_rule(learnt, folds, BEST_METHOD)
    assert np.isfinite(fit_rule(learnt, folds, WITHOUT_BACKGROUND).threshold)
    with pytest.raises(ValueError, match="'psychic' is none; known are max_probability, energy"):
        fit_rule(learnt, folds, "psychic")


def test_auroc_counts_ties_half():
    assert auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)
    assert auroc(np.zeros(3), np.ones(2)) == 1.0


def test_surprise_orders_as_the_probability_does_and_is_finite():
    certain = Outputs(
        np.array([[1.0, 0.0], [0.6, 0.4], [0.0, 0.0]]), np.zeros((3, 2)), np.zeros((3, 1)), np.zeros((3, 1))
    )
    values = Surprise()(certain)
    assert np.isfinite(values).all()
    assert values[0] < values[1] < values[2]


def test_opinions_that_differ_are_a_sign_of_a_stranger():
    agreed, torn = np.log([[0.9, 0.1]]), np.log([[0.2, 0.8]])
    both = Outputs(
        np.array([[0.9, 0.1], [0.9, 0.1]]), np.concatenate([agreed, torn]), np.zeros((2, 1)), np.zeros((2, 1))
    )
    assert Disagreement()(both) == pytest.approx([0.0, 0.7])


def with_text(probe: Outputs, pieces: list[list[int]]) -> Outputs:
    text = np.zeros((len(pieces), TEXT_FEATURES), np.float32)
    for row, numbers in zip(text, pieces, strict=True):
        row[numbers] = 1.0
    return replace(probe, text=text)


def test_words_that_the_type_does_not_show_are_a_sign_of_a_stranger():
    learnt, folds = material()
    shown = [[10 * number, 10 * number + 1] if n % 2 else [] for n, number in enumerate(learnt.types)]
    learnt = Material(with_text(learnt.known, shown), learnt.types, with_text(learnt.background, [[]] * 30))
    rule = fit_rule(learnt, folds, BEST_METHOD)
    [words] = [part.score for part in rule.parts if isinstance(part.score, UnknownWords)]
    probe = outputs(np.array([1, 1, 1, 1]), 9)
    own, none, foreign, other_types = words(with_text(probe, [[10, 11], [], [500, 501], [20, 21]]))
    assert own < none == 0 < foreign == other_types


def test_a_score_is_scaled_by_the_source_that_sets_the_threshold():
    learnt, folds = material(150)
    drawn = np.arange(len(folds)) % 4 > 0
    even = replace(
        learnt.known, logits=np.where(drawn[:, None], 5.0 * np.eye(TYPES)[learnt.types], learnt.known.logits)
    )
    both = fit_rule(replace(learnt, known=even), folds, "energy", sources=np.where(drawn, "drawn", "photograph"))
    own = fit_rule(learnt.where(~drawn), folds[~drawn], "energy")
    assert both.parts[0].scale == pytest.approx(own.parts[0].scale)
    assert both.threshold == pytest.approx(own.threshold)


def test_a_type_of_one_picture_is_no_stranger_to_itself():
    own, other = np.eye(3)[0], np.eye(3)[1]
    score = ColourNeighbours(np.array([own, other, other, other]), np.array([0, 1, 1, 1]))
    probe = Outputs(np.eye(3)[[0, 1, 2]], np.zeros((3, 3)), np.zeros((3, 1)), np.array([own, other, own]))
    assert score(probe) == pytest.approx([0.0, 0.0, 2.0], abs=1e-5)


def test_colours_that_are_kept_cover_those_that_are_not():
    rng = np.random.default_rng(3)
    crowd = np.abs(rng.normal([5.0, 1.0, 1.0], 0.02, (400, 3)))
    rare = np.eye(3)[[1, 2]]
    rows = np.concatenate([crowd, rare]) / np.linalg.norm(np.concatenate([crowd, rare]), axis=1, keepdims=True)
    kept = farthest_first(rows, 6)
    assert len(set(kept)) == 6
    assert {400, 401} <= set(kept)
    assert (rows @ rows[kept].T).max(axis=1).min() > 0.999


def test_names_of_scores_are_their_keys():
    assert all(name == score.name for name, score in SCORES.items())
    assert {score for method in METHODS.values() for score in method} == set(SCORES)


class Bench:
    """A set of pictures in pairs of near-duplicates, and a model whose training is watched."""

    def __init__(self) -> None:
        self.kinds = np.repeat(np.arange(TYPES + 2), 40)
        self.labels = np.array([f"type {kind}" if kind < TYPES else OTHERS for kind in self.kinds])
        self.embedding, self.colour = pictures(self.kinds, 11)
        self.groups = np.arange(len(self.kinds)) // 2
        self.calls: list[tuple[np.ndarray, np.ndarray]] = []

    def model(self, train: np.ndarray, rows: np.ndarray) -> Outputs:
        self.calls.append((train, rows))
        assert not set(self.groups[train]) & set(self.groups[rows]), "a picture is asked for that was trained on"
        assert OTHERS not in self.labels[train]
        centres = np.array(
            [self.embedding[train][self.kinds[train] == k].mean(axis=0) for k in np.unique(self.kinds[train])]
        )
        return outputs_of(self.embedding[rows], self.colour[rows], centres)

    @property
    def task(self) -> Task:
        return Task(self.labels, self.groups, self.model)


def test_others_are_judged_by_the_half_that_was_not_shown():
    bench = Bench()
    (trial,) = others_trials(bench.task, 1)
    assert len(trial.material.background) == len(trial.unknown) == 40
    shown = {row.tobytes() for row in trial.material.background.embedding}
    assert not shown & {row.tobytes() for row in trial.unknown.embedding}


def test_five_splits_judge_every_known_picture_once():
    bench = Bench()
    bench.groups[:30] = 0
    trials = list(others_trials(bench.task, 5))
    judged = [row.tobytes() for trial in trials for row in trial.known.embedding]
    assert sorted(judged) == sorted(row.tobytes() for row in bench.embedding[bench.labels != OTHERS])


def test_a_left_out_type_is_neither_trained_on_nor_background():
    bench = Bench()
    trials = list(left_out_trials(bench.task, 1))
    assert [trial.name for trial in trials] == [f"type {kind}" for kind in range(TYPES)]
    for trial in trials:
        assert trial.material.labels == TYPES - 1
        assert len(trial.unknown) == 40
        out = {row.tobytes() for row in trial.unknown.embedding}
        seen = np.concatenate([trial.material.known.embedding, trial.material.background.embedding])
        assert not out & {row.tobytes() for row in seen}


def test_strangers_are_not_shown_to_the_rule():
    bench = Bench()
    strangers = np.flatnonzero(bench.kinds == TYPES + 1)
    (trial,) = strangers_trials(bench.task, strangers, 1)
    assert len(trial.unknown) == 40
    assert len(trial.material.background) == 40


def test_methods_are_judged_beside_the_papers_rule():
    judged = judge(others_trials(Bench().task, 3), ["max_probability", "background"])
    assert set(judged) == {"max_probability", "background", "paper"}
    best = judged["background"]
    assert best.auroc > 0.95
    assert best.caught > 0.8
    assert best.false_ejects == pytest.approx(1 - best.caught)
    assert best.false_reject < 0.12
    assert judged["paper"].auroc == pytest.approx(judged["max_probability"].auroc)
