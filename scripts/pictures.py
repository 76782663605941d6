"""Makes the images of the README anew, from a demo of each line: `make pictures`.

The reports are photographed by a browser (chromium), which is no dependency of the package. The animation shows
what the belt demo recorded: images and decisions from the ledger, positions from the plant's own record. Batteries
on the belt are drawn 1.5 times their size, so that they can be told apart.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from battery_sorting.core.errors import FrameError
from battery_sorting.core.plant_control import fold_record
from battery_sorting.core.types import OTHERS
from battery_sorting.ledger import EventKind
from battery_sorting.ledger.store import Ledger
from battery_sorting.report.kept_pictures import KeptPictures

FOLDER = Path("docs/images")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DEMOS = {"belt": ("--items", "200"), "ev": ("--line", "ev", "--items", "60")}
"""What is asked of `battery-sorting demo` for each line."""

# ---- the reports ----

SHOTS = {
    # Width and height of the viewport, and the section that is shown below the key figures, by its heading.
    "belt": (1240, 860, "True type and the bin it fell into"),
    "ev": (1240, 1022, "Examples of every verdict"),
}
SHARPNESS = 1.5
"""Pixels of the file for each pixel of the viewport."""


def photograph(line: str, report: Path, browser: str) -> Image.Image:
    """The telling part of a report, without the ledger's path: that is one of the machine it was made on."""
    width, height, heading = SHOTS[line]
    text = re.sub(r" · ledger <code>.*?</code>", "", report.read_text(encoding="utf-8"))
    script = (
        "for (const section of document.querySelectorAll('section'))"
        f"if (section.querySelector('h2')?.textContent !== {json.dumps(heading)}) section.remove();"
    )
    style = ".tile:nth-child(n + 15) { display: none; }"  # what is not a whole row
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "page.html"), Path(folder, "shot.png")
        page.write_text(f"{text}<style>{style}</style><script>{script}</script>", encoding="utf-8")
        options = (
            f"--force-device-scale-factor={SHARPNESS}",
            f"--window-size={width},{height}",
            f"--screenshot={shot}",
        )
        headless = "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"
        subprocess.run([browser, *headless, *options, page.as_uri()], check=True, capture_output=True, timeout=120)
        return Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")


def save_small(picture: Image.Image, path: Path) -> None:
    """As a PNG of 256 colours."""
    picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


# ---- what the belt demo recorded ----


@dataclass
class Battery:
    """One battery on its way. Times are seconds of the plant's clock; ``end_mm`` is where it left the belt."""

    number: int
    trigger_s: float
    end_s: float
    end_mm: float
    bin: str
    name: str = ""
    confidence: float = 0.0
    reason: str = ""
    typed_s: float = float("inf")
    acknowledged_s: float = float("inf")
    latency_ms: float | None = None
    picture: Image.Image | None = None
    cutout: Image.Image | None = None

    def place_mm(self, t_s: float) -> float:
        """Where it is along the belt, from the photo-eye."""
        return self.end_mm * (t_s - self.trigger_s) / (self.end_s - self.trigger_s)


@dataclass
class Recording:
    """A run of the belt line."""

    batteries: list[Battery]
    valves_mm: dict[str, float]
    puffs: list[tuple[float, str]] = field(default_factory=list)


def read_recording(run: Path) -> Recording:
    """What ledger, kept pictures and the plant's record of a run hold.

    Raises:
        ConfigurationError: There is no record of the plant.
    """
    site = json.loads((run / "site.json").read_text(encoding="utf-8"))
    valves = {ejector["bin"]: float(ejector["offset_mm"]) for ejector in site["ejectors"]}
    events: list[dict[str, Any]] = []
    fold_record(run / "plant.jsonl", events.append)
    start_s = next(event["start_ns"] for event in events if event["event"] == "start") / 1e9
    triggers = {event["index"]: event for event in events if event["event"] == "trigger"}
    by_count: dict[int, Battery] = {}
    for event in events:
        if event["event"] == "bin" and (seen := triggers.get(event["index"])):
            end_mm = valves.get(event["bin"], site["belt"]["exit_offset_mm"] + 50.0)
            count = seen["trigger_count"]
            by_count[count] = Battery(count, seen["t_s"], event["t_s"], end_mm, event["bin"])
    _add_ledger(run / "ledger.sqlite", start_s, by_count)
    puffs = [(event["t_s"], event["bin"]) for event in events if event["event"] == "pulse"]
    return Recording(sorted(by_count.values(), key=lambda one: one.trigger_s), valves, puffs)


def _add_ledger(path: Path, start_s: float, by_count: dict[int, Battery]) -> None:
    """What the line knew and decided of each battery, and its picture."""
    with Ledger.open(path, read_only=True) as ledger:
        kept = KeptPictures(ledger)
        batteries = {record.battery_id: record for record in ledger.batteries()}
        for event in ledger.events():
            record = batteries.get(event.battery_id or "")
            battery = by_count.get(record.trigger_count) if record else None
            if battery is not None:
                _add_event(battery, event.kind, event.payload, event.recorded_at - start_s)
        for record in batteries.values():
            if battery := by_count.get(record.trigger_count):
                try:
                    battery.picture = Image.open(io.BytesIO(kept.read(record))).convert("RGB")
                except FrameError:
                    continue
                battery.cutout = cut_out(battery.picture)


def _add_event(battery: Battery, kind: EventKind, payload: dict[str, Any], t_s: float) -> None:
    if kind is EventKind.TYPED:
        battery.name, battery.confidence = payload["label"], payload["confidence"]
        battery.reason, battery.typed_s = payload["reason"], t_s
    elif kind is EventKind.EJECT_REPORTED and payload["outcome"] == "scheduled":
        battery.acknowledged_s, battery.latency_ms = t_s, payload["latency_s"] * 1000


def cut_out(picture: Image.Image) -> Image.Image:
    """The battery of a kept picture, upright as it lies, with the belt around it transparent."""
    lab = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2LAB).astype(np.float32)
    differs = (np.linalg.norm(lab - np.median(lab, axis=(0, 1)), axis=2) > 32).astype(np.uint8)
    differs = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    height, width = differs.shape
    count, labels, stats, middles = cv2.connectedComponentsWithStats(differs)
    large = [n for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] > 800]
    mask = np.zeros_like(differs)
    if large:
        central = min(large, key=lambda n: float(np.hypot(*(middles[n] - (width / 2, height / 2)))))
        near = [n for n in large if float(np.hypot(*(middles[n] - middles[central]))) < 130]
        hull = cv2.convexHull(cv2.findNonZero(np.isin(labels, near).astype(np.uint8)))
        cv2.fillConvexPoly(mask, hull, 255)
    cut = picture.copy()
    cut.putalpha(Image.fromarray(cv2.GaussianBlur(mask, (5, 5), 0)))
    return cut.crop(cut.getbbox() or (0, 0, 1, 1))


# ---- the animation ----

SIZE = (960, 540)
FINER = 2
"""Drawn so much larger, and reduced: smooth edges."""
FRAMES_PER_S, SECONDS, SLOWER = 12, 12, 2.0
CAMERA = (16, 56, 300, 240)
TABLE = (336, 56)
ROWS = 8
RIGHT = {"confidence", "latency", "position"}
"""Columns that are set flush right."""
BELT_TOP, BELT_HEIGHT = 346, 58
BINS_TOP, BINS_HEIGHT = 434, 92
FIRST_MM, LAST_MM = -330.0, 2290.0
PICTURE_MM = 128.0
LARGER = 1.5
FALL_S, PUFF_S = 0.25, 0.12
GROUND, PANEL, EDGE, INK, SOFT, BELT = "#10171f", "#18222d", "#2b3947", "#e8edf2", "#8a99a8", "#39434e"
COLOURS = ("#4c8fdd", "#f08c46", "#4fbf77", "#e35d70", "#a383d6", "#2cb9c8", "#d9b44a", "#ec86b8", "#93b553")
GREY = "#9aa7b4"


@lru_cache
def font(size: int, bold: bool = False, family: str = "DejaVu Sans") -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib."""
    properties = font_manager.FontProperties(family=family, weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(properties), size * FINER)


class Pen:
    """Draws on a frame, in its pixels, finer than they are."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (SIZE[0] * FINER, SIZE[1] * FINER), GROUND)
        self._draw = ImageDraw.Draw(self.image, "RGBA")

    def text(self, x: float, y: float, text: str, size: int, fill: str = INK, **how: Any) -> None:
        """Text; ``how``: anchor (left middle by default), bold, family."""
        anchor = how.pop("anchor", "lm")
        self._draw.text((x * FINER, y * FINER), text, fill, font(size, **how), anchor)

    def box(self, x: float, y: float, width: float, height: float, fill: str, outline: str | None = None) -> None:
        """A rectangle with round corners."""
        corners = (x * FINER, y * FINER, (x + width) * FINER, (y + height) * FINER)
        self._draw.rounded_rectangle(corners, 5 * FINER, fill, outline, FINER)

    def polygon(self, points: Iterable[tuple[float, float]], fill: str) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * FINER, y * FINER) for x, y in points], fill)

    def line(self, x0: float, y0: float, x1: float, y1: float, fill: str, width: float = 1) -> None:
        """A straight line."""
        self._draw.line((x0 * FINER, y0 * FINER, x1 * FINER, y1 * FINER), fill, round(width * FINER))

    def paste(self, picture: Image.Image, x: float, y: float, opacity: float = 1.0) -> None:
        """A picture, by its middle."""
        mask = picture.getchannel("A").point(lambda value: int(value * opacity)) if picture.mode == "RGBA" else None
        left = round(x * FINER - picture.width / 2)
        self.image.paste(picture.convert("RGB"), (left, round(y * FINER - picture.height / 2)), mask)

    def frame(self) -> Image.Image:
        """The frame in its own size."""
        return self.image.resize(SIZE, Image.Resampling.LANCZOS)


def x_of(place_mm: float) -> float:
    """Where a place along the belt is in the frame."""
    return 16 + (place_mm - FIRST_MM) / (LAST_MM - FIRST_MM) * (SIZE[0] - 32)


class Animation:
    """Draws a recording at any time of the plant's clock."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._valves = recording.valves_mm
        self._colours = dict(zip(sorted(self._valves), COLOURS, strict=False))
        self._small: dict[int, Image.Image] = {}

    def frames(self) -> Iterator[Image.Image]:
        """The frames of the animation, from when the belt is full."""
        batteries = self._recording.batteries
        full = next(one.end_s for one in batteries if one.bin == OTHERS) - 1.0
        for number in range(FRAMES_PER_S * SECONDS):
            yield self.draw(full + number / FRAMES_PER_S / SLOWER)

    def draw(self, t_s: float) -> Image.Image:
        """The frame of a time."""
        pen = Pen()
        self._head(pen, t_s)
        self._camera(pen, t_s)
        self._table(pen, t_s)
        self._bins(pen, t_s)
        self._belt(pen, t_s)
        return pen.frame()

    def _colour(self, bin_: str) -> str:
        return self._colours.get(bin_, GREY)

    def _head(self, pen: Pen, t_s: float) -> None:
        done = [one for one in self._recording.batteries if one.end_s <= t_s]
        pen.text(16, 28, "make demo", 16, bold=True, family="DejaVu Sans Mono")
        pen.text(122, 28, "the belt line on the simulated plant, 5 batteries per second", 13, SOFT)
        pen.text(SIZE[0] - 16, 28, f"half speed   {len(done)} sorted", 13, SOFT, anchor="rm")

    def _camera(self, pen: Pen, t_s: float) -> None:
        x, y, width, height = CAMERA
        seen = [one for one in self._recording.batteries if one.trigger_s <= t_s and one.picture]
        if not seen:
            return
        battery = seen[-1]
        picture = battery.picture.resize((width * FINER, height * FINER), Image.Resampling.LANCZOS)
        pen.paste(picture, x + width / 2, y + height / 2)
        pen.box(x, y + height - 30, width, 30, "#10171fd8")
        if battery.typed_s <= t_s:
            named = battery.bin in self._valves
            label = battery.name if named else (battery.reason or "unsure").replace("_", " ")
            pen.text(x + 12, y + height - 15, label, 15, self._colour(battery.bin), bold=True)
            pen.text(x + width - 12, y + height - 15, f"{battery.confidence:.0%}", 15, INK, anchor="rm")

    def _table(self, pen: Pen, t_s: float) -> None:
        x, y = TABLE
        width, step = SIZE[0] - 16 - x, 240 / (ROWS + 1)
        pen.box(x, y, width, 240, PANEL, EDGE)
        columns = {"battery": 14, "type": 92, "confidence": 286, "bin": 320, "latency": 484, "position": 590}
        for name, left in columns.items():
            anchor = "rm" if name in RIGHT else "lm"
            pen.text(x + left, y + step / 2, name, 11, SOFT, anchor=anchor)
        pen.line(x + 1, y + step, x + width - 1, y + step, EDGE)
        seen = [one for one in self._recording.batteries if one.trigger_s <= t_s]
        for row, battery in enumerate(reversed(seen[-ROWS:])):
            middle = y + step * (row + 1.5)
            pen.text(x + 14, middle, f"{battery.number:06d}", 12, SOFT, family="DejaVu Sans Mono")
            self._row(pen, battery, t_s, {name: x + left for name, left in columns.items()}, middle)

    def _row(self, pen: Pen, battery: Battery, t_s: float, at: dict[str, float], middle: float) -> None:
        colour = self._colour(battery.bin)
        if battery.typed_s > t_s:
            pen.text(at["type"], middle, "…", 12, SOFT)
            return
        pen.text(at["type"], middle, battery.name, 12, colour if battery.bin in self._valves else SOFT)
        pen.text(at["confidence"], middle, f"{battery.confidence:.0%}", 12, INK, anchor="rm")
        pen.text(at["bin"], middle, battery.bin, 12, colour)
        if battery.acknowledged_s <= t_s and battery.latency_ms is not None:
            pen.text(at["latency"], middle, f"{battery.latency_ms:.0f} ms", 12, INK, anchor="rm")
        now = "in bin" if battery.end_s <= t_s else f"{battery.place_mm(t_s) / 1000:.2f} m"
        pen.text(at["position"], middle, now, 12, colour if battery.end_s <= t_s else SOFT, anchor="rm")

    def _bins(self, pen: Pen, t_s: float) -> None:
        counts = Counter(one.bin for one in self._recording.batteries if one.end_s + FALL_S <= t_s)
        pen.text(16, BINS_TOP + 20, "Images and decisions: from the ledger.", 11, SOFT)
        pen.text(16, BINS_TOP + 38, "Positions: from the plant's own record.", 11, SOFT)
        width = x_of(150) - x_of(0) - 5
        places = {**self._valves, OTHERS: next(b.end_mm for b in self._recording.batteries if b.bin == OTHERS)}
        for name, place_mm in places.items():
            x = x_of(place_mm)
            pen.box(x - width / 2, BINS_TOP, width, BINS_HEIGHT, PANEL, EDGE)
            pen.box(x - width / 2, BINS_TOP, width, 4, self._colour(name))
            pen.text(x, BINS_TOP + 32, str(counts[name]), 20, INK, anchor="mm", bold=True)
            for line, word in enumerate(name.split("_")):
                pen.text(x, BINS_TOP + 60 + 14 * line, word, 9, SOFT, anchor="mm")

    def _belt(self, pen: Pen, t_s: float) -> None:
        middle = BELT_TOP + BELT_HEIGHT / 2
        pen.box(16, BELT_TOP, x_of(2140) - 16, BELT_HEIGHT, BELT)
        eye = x_of(0)
        pen.line(eye, BELT_TOP - 8, eye, BELT_TOP + BELT_HEIGHT + 4, "#e35d70", 1.5)
        pen.text(eye, BELT_TOP - 18, "photo-eye, camera", 11, SOFT, anchor="mm")
        pen.text(x_of(1200), BELT_TOP - 24, "air ejectors", 11, SOFT, anchor="mm")
        for name, place_mm in self._valves.items():
            x = x_of(place_mm)
            pen.polygon([(x - 7, BELT_TOP - 13), (x + 7, BELT_TOP - 13), (x, BELT_TOP - 2)], self._colour(name))
        for battery in self._recording.batteries:
            self._battery(pen, battery, t_s, middle)
        for puff_s, name in self._recording.puffs:
            if 0 <= t_s - puff_s < PUFF_S:
                x = x_of(self._valves[name])
                bottom = BELT_TOP + BELT_HEIGHT
                pen.polygon([(x - 3, BELT_TOP), (x + 3, BELT_TOP), (x + 15, bottom), (x - 15, bottom)], "#d9f1ff90")

    def _battery(self, pen: Pen, battery: Battery, t_s: float, middle: float) -> None:
        place_mm = battery.place_mm(min(t_s, battery.end_s))
        if place_mm < FIRST_MM + 40 or t_s > battery.end_s + FALL_S or battery.cutout is None:
            return
        fallen = max(0.0, t_s - battery.end_s) / FALL_S
        y = middle + fallen * (BINS_TOP + 10 - middle)
        pen.paste(self._drawn(battery), x_of(place_mm), y, 1 - 0.7 * fallen)

    def _drawn(self, battery: Battery) -> Image.Image:
        if battery.number not in self._small:
            mm_per_px = PICTURE_MM / battery.picture.width
            factor = mm_per_px * LARGER * FINER * (x_of(1) - x_of(0))
            size = [max(1, round(side * factor)) for side in battery.cutout.size]
            self._small[battery.number] = battery.cutout.resize(size, Image.Resampling.LANCZOS)
        return self._small[battery.number]


def save_animation(frames: list[Image.Image], path: Path) -> None:
    """As an animated WebP, which GitHub and all browsers show."""
    pause_ms = round(1000 / FRAMES_PER_S)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=pause_ms, loop=0, quality=72, method=4)


# ---- the command ----


def run_demos(folder: Path) -> None:
    """A demo of each line, recorded below ``folder``.

    Raises:
        subprocess.CalledProcessError: One has not worked.
    """
    for line, options in DEMOS.items():
        subprocess.run(["battery-sorting", "demo", *options, "--run-dir", str(folder / line)], check=True)


def main() -> int:
    """Make all pictures; with ``--runs`` from demos that were recorded before."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=Path, help="folder with the run folders 'belt' and 'ev' of two demos")
    runs = parser.parse_args().runs
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"none of {', '.join(BROWSERS)} is installed: apt-get install chromium", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        if runs is None:
            runs = Path(folder)
            run_demos(runs)
        for line in SHOTS:
            save_small(photograph(line, runs / line / "report.html", browser), FOLDER / f"{line}_report.png")
        save_animation(list(Animation(read_recording(runs / "belt")).frames()), FOLDER / "demo.webp")
    return 0


if __name__ == "__main__":
    sys.exit(main())
