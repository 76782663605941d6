"""Judges the look of a cell in one view: is it good, and if not, what is wrong and where. No PyTorch.

A model's folder holds ``card.json``, ``model.onnx`` and, for cells under the station's cameras, ``finder.onnx``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from battery_sorting.core.types import LookVerdict
from battery_sorting.vision.card import WEIGHTS_FILE, check_file, check_weights
from battery_sorting.vision.cell_finder import FINDER_FILE, CellFinder, FoundCell
from battery_sorting.vision.codes import read_code
from battery_sorting.vision.defect_card import DefectCard, read_defect_card
from battery_sorting.vision.engine import open_engine
from battery_sorting.vision.framing import sharpness, to_bgr, widened

FLAT = 2.5
"""Spread of the grey levels (of a thumbnail, so without noise) below which a frame is blank."""
BRIGHT, DARK = 250, 6
CLIPPED_SHARE = 0.5
"""Share of bright pixels from which a frame is saturated."""
MOSTLY_DARK = 0.95
"""Share of dark pixels from which a frame is blank: the light was off."""
SMALLEST_FRAME = 64
"""Shorter side of the least frame that is looked at, pixels."""
FILLED = 0.72
"""Share of its box that one cell fills at least; two that touch leave more open."""


@dataclass(frozen=True, slots=True)
class ViewVerdict:
    """What is to be said of one picture.

    Attributes:
        view: ``lug``, ``case``, or empty for a model of other things.
        verdict: ``good``, ``defective``, ``unsure`` or ``bad_image``.
        reason: Kind of defect; ``low_confidence`` or ``novel_look`` when unsure; what is wrong with the image:
            ``blank``, ``saturated``, ``blurred``, ``wrong_size``, ``no_cell``, ``several_cells``, ``cut_off``,
            ``wrong_face``; empty for good ones.
        kind: The most probable defect, even of a good picture; empty for bad images.
        probability: That it is defective, calibrated, 0..1; NaN for bad images.
        kinds: Probability of each label.
        novelty: How little it resembles good ones; the model's limit stands in its card. NaN where it has none.
        box: Corners (4, 2) of the cell in the frame's pixels; None if it wasn't looked for or found.
        code: Text of the printed code, empty if none was read.
        face: ``lug`` or ``case`` as seen; empty if that can't be told.
        heat: How defective each place looks, float32 (h, w) over the cut-out: 0 up to a probability of one half, 1
            at certainty; of models with a kernel head how novel. None for bad images and models without a map.
        seconds: That this took.
    """

    view: str
    verdict: LookVerdict
    reason: str = ""
    kind: str = ""
    probability: float = float("nan")
    kinds: dict[str, float] = field(default_factory=dict)
    novelty: float = float("nan")
    box: np.ndarray | None = None
    code: str = ""
    face: str = ""
    heat: np.ndarray | None = None
    seconds: float = float("nan")


class DefectInspector:
    """A defect model, ready to look at pictures.

    Args:
        folder: Of the model.
        threshold: Probability of a defect that makes a cell defective, in place of the card's.
        threads: Processor threads for one picture.

    Raises:
        ModelError: Card or files are missing or don't match.
    """

    def __init__(self, folder: Path, threshold: float | None = None, threads: int = 1) -> None:
        self.folder = folder
        self.card: DefectCard = read_defect_card(folder)
        self._engine = open_engine(check_weights(folder, self.card), str(folder / WEIGHTS_FILE), threads=threads)
        self._finder: CellFinder | None = None
        if self.card.framing.crop == "cell":
            path = check_file(folder, self.card, FINDER_FILE)
            self._finder = CellFinder(path.read_bytes(), str(path), threads)
        self.defective_from = self.card.defective_from if threshold is None else threshold
        self.good_below = min(self.card.good_below, self.defective_from)

    @classmethod
    def load(cls, folder: str | Path, threshold: float | None = None, threads: int = 1) -> DefectInspector:
        """The model in ``folder``; see the class."""
        return cls(Path(folder), threshold, threads)

    @property
    def name(self) -> str:
        """``name/version``."""
        return f"{self.card.name}/{self.card.version}"

    def warm_up(self) -> None:
        """The first run is slow; have it behind."""
        framing = self.card.framing
        self._judge(np.zeros((framing.height, framing.width, 3), np.uint8))
        if self._finder is not None:
            self._finder.find(np.zeros((64, 80, 3), np.uint8))

    def inspect(self, image: np.ndarray) -> ViewVerdict:
        """Look at a frame.

        Args:
            image: (height, width, 3) BGR or (height, width), 8 or 16 bits.

        Raises:
            FrameError: It is no picture at all.
        """
        began = time.perf_counter()
        verdict = self._inspect(image)
        return replace(verdict, seconds=time.perf_counter() - began)

    def _inspect(self, image: np.ndarray) -> ViewVerdict:
        bgr = to_bgr(image)
        trouble = trouble_with(bgr)
        if trouble:
            return self._bad(trouble)
        seen = self._finder.find(bgr) if self._finder else FoundCell(1)
        trouble = self._trouble_with_cell(seen)
        if trouble:
            return self._bad(trouble, seen)
        cutout = self.card.framing.cut(bgr, seen.box)
        code = read_code(bgr, seen.box) if seen.box is not None else ""
        if seen.face and self.card.view and seen.face != self.card.view:
            return replace(self._bad("wrong_face", seen), code=code)
        if sharpness(cutout) < self.card.limits.sharpness:
            return replace(self._bad("blurred", seen), code=code)
        return replace(self._judge(cutout), box=seen.box, face=seen.face, code=code)

    def _judge(self, cutout: np.ndarray) -> ViewVerdict:
        said = self._engine.run(self.card.framing.normalise(cutout)[None])
        kinds = dict(zip(self.card.labels, map(float, said["probabilities"][0]), strict=True))
        probability = min(1.0, max(0.0, 1.0 - sum(kinds[label] for label in self.card.good)))
        kind = max(self.card.defects, key=kinds.__getitem__)
        novelty = float(said["novelty"][0]) if "novelty" in said else float("nan")
        verdict, reason = self._rule(probability, kind, novelty)
        heat = self.card.framing.unfolded(np.clip(2 * said["heat"][0] - 1, 0, 1)) if "heat" in said else None
        return ViewVerdict(self.card.view, verdict, reason, kind, probability, kinds, novelty, heat=heat)

    def _rule(self, probability: float, kind: str, novelty: float) -> tuple[LookVerdict, str]:
        if probability >= self.defective_from:
            return LookVerdict.DEFECTIVE, kind
        if self.card.novelty_from is not None and novelty >= self.card.novelty_from:
            return LookVerdict.UNSURE, "novel_look"
        if probability < self.good_below:
            return LookVerdict.GOOD, ""
        return LookVerdict.UNSURE, "low_confidence"

    def _trouble_with_cell(self, seen: FoundCell) -> str:
        """What keeps the cell that was found from being judged; empty if nothing does."""
        if not seen.cells:
            return "no_cell"
        if seen.cells > 1:
            return "several_cells"
        if seen.cut_off:
            return "cut_off"
        if seen.box is None:
            return ""
        if seen.filled < FILLED:
            return "several_cells"
        long, short = np.linalg.norm(seen.box[1] - seen.box[0]), np.linalg.norm(seen.box[3] - seen.box[0])
        limits = self.card.limits
        right_face = seen.face == self.card.view  # the limits are those of the view
        if limits.cell_px and not limits.cell_px[0] <= long <= limits.cell_px[1]:
            return "wrong_size"
        if right_face and limits.slenderness and not limits.slenderness[0] <= long / short <= limits.slenderness[1]:
            return "several_cells" if long / short < limits.slenderness[0] else "wrong_size"
        return ""

    def _bad(self, reason: str, seen: FoundCell | None = None) -> ViewVerdict:
        found = seen or FoundCell(0)
        return ViewVerdict(self.card.view, LookVerdict.BAD_IMAGE, reason, box=found.box, face=found.face)

    def overlay(self, image: np.ndarray, verdict: ViewVerdict) -> np.ndarray:
        """A frame with what this model said of it; see the function `overlay`."""
        return overlay(image, verdict, self.card.framing.margin)


def trouble_with(bgr: np.ndarray) -> str:
    """What keeps a frame from being looked at: ``wrong_size``, ``blank``, ``saturated``; empty if nothing does."""
    if min(bgr.shape[:2]) < SMALLEST_FRAME:
        return "wrong_size"
    grey = cv2.cvtColor(cv2.resize(bgr, (80, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    if float(grey.std()) < FLAT or float((grey <= DARK).mean()) > MOSTLY_DARK:
        return "blank"
    return "saturated" if float((grey >= BRIGHT).mean()) > CLIPPED_SHARE else ""


def overlay(image: np.ndarray, verdict: ViewVerdict, margin: float = 0.0) -> np.ndarray:
    """The frame, BGR, with the cell's box, the heat on it, and the verdict in words.

    Args:
        image: The frame that was inspected.
        verdict: What was said of it.
        margin: Of the model's framing.
    """
    drawn = to_bgr(image).copy()
    height, width = drawn.shape[:2]
    box = verdict.box
    if verdict.heat is not None:
        area = widened(box, margin) if box is not None else _corners(width, height)
        drawn = _with_heat(drawn, verdict.heat, area)
    colour = COLOURS[verdict.verdict]
    thick = max(1, round(width / 500))
    if box is not None:
        cv2.polylines(drawn, [np.round(box).astype(np.int32)], True, colour, thick, cv2.LINE_AA)
    size = max(0.35, width / 1100)
    text = caption(verdict)
    (_, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
    cv2.rectangle(drawn, (0, 0), (width, 2 * tall), (30, 30, 30), -1)
    cv2.putText(drawn, text, (tall, round(1.5 * tall)), cv2.FONT_HERSHEY_SIMPLEX, size, colour, thick, cv2.LINE_AA)
    return drawn


COLOURS = {
    LookVerdict.GOOD: (90, 220, 90),
    LookVerdict.DEFECTIVE: (80, 80, 255),
    LookVerdict.UNSURE: (60, 200, 255),
    LookVerdict.BAD_IMAGE: (220, 120, 220),
}


def caption(verdict: ViewVerdict) -> str:
    """A verdict in one line."""
    parts = [verdict.verdict.replace("_", " ")]
    if verdict.reason:
        parts.append(verdict.reason.replace("_", " "))
    if verdict.kinds:
        parts.append(f"p(defect) {verdict.probability:.2f}")
    if verdict.code:
        parts.append(verdict.code)
    return "  ".join(parts)


def _corners(width: int, height: int) -> np.ndarray:
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64) - 0.5


def _with_heat(drawn: np.ndarray, heat: np.ndarray, area: np.ndarray) -> np.ndarray:
    height, width = heat.shape
    matrix = cv2.getAffineTransform(_corners(width, height)[:3].astype(np.float32), area[:3].astype(np.float32))
    size = (drawn.shape[1], drawn.shape[0])
    there = cv2.warpAffine(np.clip(heat, 0, 1).astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap((255 * there).astype(np.uint8), cv2.COLORMAP_JET)
    share = (0.6 * there * (there > 0.15))[..., None]
    return np.asarray((drawn * (1 - share) + colours * share).astype(np.uint8))
