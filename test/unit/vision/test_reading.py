"""What is printed on a battery is read, and counts where look and colours leave doubt."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from battery_sorting.core.errors import ModelError
from battery_sorting.vision.open_set import (
    LookColourText,
    OpenSetCard,
    OpenSetRule,
    Outputs,
    ReadingZone,
    ScorePart,
    read_rule,
)
from battery_sorting.vision.preprocessing import Preprocessing
from battery_sorting.vision.reading import TEXT_FEATURES, Line, Reader, text_features
from battery_sorting.vision.training.open_set import Material, auroc, fit_rule
from battery_sorting.vision.training.reader import CHARACTERS, convert_reader

READER = Path(__file__).parents[3] / "models" / "battery_type" / "1" / "reader.onnx"


@pytest.fixture(scope="module")
def reader():
    return Reader(READER.read_bytes(), str(READER))


def labelled(word: str, turned: bool = False) -> np.ndarray:
    """A dark battery with a word on it, on a bright belt."""
    picture = np.full((480, 640, 3), 200, np.uint8)
    cv2.rectangle(picture, (90, 170), (550, 310), (40, 30, 30), -1)
    cv2.putText(picture, word, (130, 262), cv2.FONT_HERSHEY_SIMPLEX, 2.0, (250, 250, 250), 5, cv2.LINE_AA)
    return np.ascontiguousarray(picture[::-1, ::-1]) if turned else picture


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("word", ["PROCELL", "Panasonic"])
def test_word_is_read_whichever_way_up_it_lies(reader, word, turned):
    lines = reader.read(labelled(word, turned), Preprocessing())
    assert word.upper() in {line.text.upper() for line in lines}
    plain = text_features([Line(word, 1.0)]) > 0
    assert (text_features(lines)[plain] > 0).all()


def test_nothing_is_read_where_nothing_is_printed(reader):
    assert not text_features(reader.read(labelled(""), Preprocessing())).any()


def test_upper_and_lower_case_are_the_same_text_and_uncertain_lines_are_none():
    assert (text_features([Line("Procell", 0.9)]) == text_features([Line("PROCELL", 0.9)])).all()
    assert not text_features([Line("Procell", 0.3)]).any()
    assert not text_features([Line("+", 0.9)]).any()


def test_file_that_is_no_reader_is_named():
    with pytest.raises(ModelError, match=r"reader\.onnx: is no network that reads"):
        Reader(b"no network", "reader.onnx")
    with pytest.raises(ModelError, match="PP-OCRv4"):
        convert_reader(b"no network")
    assert len(set(CHARACTERS)) == len(CHARACTERS)


WORDS = ("DURACELL", "ENERGIZER", "PANASONIC")


def alike_but_for_a_word(kinds: np.ndarray, seed: int) -> Outputs:
    """Pictures of two types and of strangers (number 2) that look like either and bear other words."""
    rng = np.random.default_rng(seed)
    look = np.where(kinds == 2, rng.integers(0, 2, len(kinds)), kinds)
    centres = np.random.default_rng(1).normal(size=(2, 16))
    embedding = centres[look] + 0.4 * rng.normal(size=(len(kinds), 16))
    colour = np.array([rng.dirichlet(40 * np.eye(8)[3 * one] + 1) for one in look])
    text = np.stack([text_features([Line(WORDS[kind], 0.9)] if rng.random() < 0.8 else []) for kind in kinds])
    sure = np.eye(2)[look] * 0.8 + 0.1
    return Outputs(sure, np.log(sure), embedding, colour, text)


@pytest.fixture(scope="module")
def rule():
    types = np.repeat([0, 1], 150)
    learnt = Material(alike_but_for_a_word(types, 3), types, alike_but_for_a_word(np.full(60, 2), 4))
    return fit_rule(learnt, np.arange(300) % 5, "look_colour_text")


def test_words_tell_what_look_and_colours_do_not(rule):
    known, strange = alike_but_for_a_word(np.arange(200) % 2, 5), alike_but_for_a_word(np.full(200, 2), 6)
    unread = [Outputs(*one._arrays()) for one in (known, strange)]
    score = rule.parts[0].score
    assert auroc(*map(score, unread)) < 0.7
    assert auroc(score(known), score(strange)) > 0.85


def test_only_batteries_in_doubt_are_read(rule):
    probe = alike_but_for_a_word(np.arange(100) % 3, 7)
    before = rule.novelty(Outputs(*probe._arrays()))
    asked = []
    for n, novelty in enumerate(rule.novelty(probe)):
        one = (array[n] for array in probe._arrays())
        value, _ = rule.judge(*one, lambda n=n: asked.append(n) or probe.read()[n])
        assert value == pytest.approx(novelty, abs=1e-4)
    in_doubt = (before > rule.reading.above) & (before < rule.reading.below)
    assert asked == np.flatnonzero(in_doubt).tolist()
    assert 0 < len(asked) < len(probe)


def test_rule_that_reads_survives_its_file(rule, tmp_path):
    path = tmp_path / "open_set.npz"
    path.write_bytes(rule.to_bytes())
    card = OpenSetCard(method=rule.method, threshold=rule.threshold, false_reject=0.05, reading=rule.reading)
    probe = alike_but_for_a_word(np.arange(30) % 3, 8)
    assert read_rule(path, card).novelty(probe) == pytest.approx(rule.novelty(probe), abs=0.02)


def test_outputs_that_nobody_has_read_join_those_that_were(rule):
    read = alike_but_for_a_word(np.array([0, 2]), 9)
    both = read.joined(Outputs(*read._arrays()))
    assert both.read().shape == (4, TEXT_FEATURES)
    assert not both.read()[2:].any()
    assert isinstance(rule, OpenSetRule) and isinstance(rule.parts[0], ScorePart)
    assert isinstance(rule.parts[0].score, LookColourText)
    assert isinstance(rule.reading, ReadingZone)
