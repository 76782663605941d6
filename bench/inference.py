"""How long a verdict takes: run times and precisions side by side, and the parts of the way from frame to type.

    scripts/run-in-environment python bench/inference.py [--model DIR] [--pictures DIR] [--repeats 40] [--json]

One thread throughout. All variants run in turn, again and again, so that what else the machine does meets all of
them alike. Figures are per picture: median and least of wall-clock time, and the median of processor time, which on
a busy machine comes nearer to what an idle core would take. Needs requirements/train.txt; with
requirements/openvino.txt OpenVINO is compared too. With pictures (a folder per type) it also says what 8 bits and
bf16 cost in right answers.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from battery_sorting.cli.classify import SHIPPED_MODEL, shipped_model
from battery_sorting.core.errors import BatterySortingError, ConfigurationError, FrameError
from battery_sorting.vision.card import WEIGHTS_FILE, check_weights, read_card
from battery_sorting.vision.classifier import TypeClassifier
from battery_sorting.vision.colour import colour_histogram
from battery_sorting.vision.encodings import decode
from battery_sorting.vision.engine import Backend, Precision, open_engine, precisions
from battery_sorting.vision.picture_folders import find_pictures
from battery_sorting.vision.pictures import read_picture
from battery_sorting.vision.preprocessing import Cutout, Preprocessing
from battery_sorting.vision.training import quantise
from battery_sorting.vision.training.data import random_item, to_bayer

BATCHES = (1, 2, 4, 8)
FRAMES = 18
WARM = 2  # rounds that are not counted
INSTRUCTIONS = {
    "bf16": ("amx_bf16", "avx512_bf16"),
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni"),
}
"""Flags of the processor that make a precision faster than f32."""

Run = Callable[[int], Any]
Times = dict[tuple[str, str], list[tuple[float, float]]]


def main() -> int:
    """Runs the benchmark. Exit code 1 if the model can't be had."""
    arguments = parse_arguments()
    console = Console(stderr=arguments.json)
    cv2.setNumThreads(1)
    try:
        result = measure(arguments.model or shipped_model(), arguments, console)
    except BatterySortingError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        show(console, result)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help=f"folder of the model; {SHIPPED_MODEL} if not given")
    parser.add_argument("--pictures", type=Path, help="folder per type, to judge what int8 and bf16 lose")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args()


def measure(model: Path, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All figures."""
    card = read_card(model)
    frames = draw_frames()
    cutouts = [card.preprocessing.cut_out(frame_to_rgb(frame)) for frame in frames]
    with tempfile.TemporaryDirectory() as folder:
        int8 = Path(folder) / "int8"
        console.print("quantising")
        quantise.quantise_model(model, cutouts, int8)
        variants, missing = network_runs(model, int8, cutouts)
        runs = {(name, f"batch {n}"): bound(run, n) for name, run in variants.items() for n in BATCHES}
        runs |= {("part", name): run for name, run in part_runs(model, frames, cutouts).items()}
        times = interleaved(runs, arguments.repeats, console)
        losses = judge(model, int8, arguments.pictures, console) if arguments.pictures else {}
    return {
        "model": f"{card.name}/{card.version}",
        "processor": processor(),
        "instructions": {name: faster(name) for name in INSTRUCTIONS},
        "network_ms_per_picture": networks(variants, times) | missing,
        "parts_ms": {name: figures(times[key], 1) for key in runs if key[0] == "part" for name in [key[1]]},
        "loss": losses,
    }


def draw_frames() -> list[np.ndarray]:
    """Raw frames of the simulated camera, uint8 Bayer (1024, 1280)."""
    renderer: Any = importlib.import_module("battery_sorting.vision.synthetic.renderer").make_renderer(None, 3)
    types = renderer.types()
    items = [random_item(types[number % len(types)], number) for number in range(FRAMES)]
    return [to_bayer(renderer.render(item, items_nearby=[], speed_mps=0.5, t_s=1.0)) for item in items]


def frame_to_rgb(frame: np.ndarray) -> np.ndarray:
    """As the classifier's node does it."""
    height, width = frame.shape
    return decode(frame.data, "bayer_rggb8", height, width, width)


def network_runs(model: Path, int8: Path, cutouts: list[Cutout]) -> tuple[dict[str, Run], dict[str, str]]:
    """What runs n pictures, for each variant; and why the others are missing."""
    preprocessing = read_card(model).preprocessing
    pixels = np.concatenate([preprocessing.normalise(cutout.pixels) for cutout in cutouts[: max(BATCHES)]])
    colour = np.stack([colour_histogram(cutout) for cutout in cutouts[: max(BATCHES)]])
    makers: dict[str, Callable[[], Run]] = {
        "pytorch f32 (backbone)": lambda: torch_run(model, pixels, "f32"),
        "pytorch bf16 (backbone)": lambda: torch_run(model, pixels, "bf16"),
        "onnxruntime f32": lambda: engine_run(model, pixels, colour, "onnxruntime", "f32"),
        "onnxruntime int8": lambda: engine_run(int8, pixels, colour, "onnxruntime", "f32"),
        "openvino f32": lambda: engine_run(model, pixels, colour, "openvino", "f32"),
        "openvino bf16": lambda: engine_run(model, pixels, colour, "openvino", "bf16"),
        "openvino int8": lambda: engine_run(int8, pixels, colour, "openvino", "f32"),
    }
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            runs[name] = make()
        except ConfigurationError as error:
            missing[name] = error.problems[0]
    return runs, missing


def engine_run(model: Path, pixels: np.ndarray, colour: np.ndarray, backend: Backend, precision: Precision) -> Run:
    """The whole network with its head."""
    weights = check_weights(model, read_card(model))
    engine = open_engine(weights, str(model / WEIGHTS_FILE), backend, precision)
    return lambda n: engine.run(pixels[:n], colour[:n])


def torch_run(model: Path, pixels: np.ndarray, precision: str) -> Run:
    """The backbone alone, as eager PyTorch runs it; random weights take as long as others."""
    if precision == "bf16" and not faster("bf16"):
        raise ConfigurationError("precision", ["not available on this processor"])
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise ConfigurationError("torch", [f"not installed ({error}): requirements/train.txt"]) from error
    backbone: Any = importlib.import_module("battery_sorting.vision.training.backbone")
    torch.set_num_threads(1)
    network = backbone.random_backbone(read_card(model).data.get("backbone", backbone.DEFAULT_BACKBONE)).eval()
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    network, given = network.to(kind), torch.from_numpy(pixels).to(kind)

    def run(n: int) -> Any:
        with torch.inference_mode():
            return network.forward_features(given[:n]).mean(dim=(2, 3))

    return run


def part_runs(model: Path, frames: list[np.ndarray], cutouts: list[Cutout]) -> dict[str, Callable[[], Any]]:
    """The steps from a raw frame to a verdict, each on the next frame at every call; and the whole way."""
    classifier = TypeClassifier(model)
    preprocessing: Preprocessing = classifier.card.preprocessing
    pictures = [frame_to_rgb(frame) for frame in frames]
    pixels = [preprocessing.normalise(cutout.pixels) for cutout in cutouts]
    colours = [colour_histogram(cutout)[None] for cutout in cutouts]
    three = np.concatenate(pixels[:3]), np.concatenate(colours[:3])
    engine = open_engine(check_weights(model, classifier.card), str(model / WEIGHTS_FILE))
    return {
        "Bayer binning": in_turn(frame_to_rgb, frames),
        "crop": in_turn(preprocessing.cut_out, pictures),
        "normalise": in_turn(lambda cutout: preprocessing.normalise(cutout.pixels), cutouts),
        "colour histogram": in_turn(colour_histogram, cutouts),
        "network, first view": in_turn(lambda pair: engine.run(*pair), list(zip(pixels, colours, strict=True))),
        "network, three more views": lambda: engine.run(*three),
        "classify (all but the binning, with the novelty rule)": in_turn(classifier.classify, pictures),
        "whole path": in_turn(lambda frame: classifier.classify(frame_to_rgb(frame)), frames),
    }


def in_turn(step: Callable[[Any], Any], items: list[Any]) -> Callable[[], Any]:
    """Takes the next item at every call."""
    state = {"next": 0}

    def run() -> Any:
        item = items[state["next"] % len(items)]
        state["next"] += 1
        return step(item)

    return run


def bound(run: Run, n: int) -> Callable[[], Any]:
    """``run`` of n pictures."""
    return lambda: run(n)


def interleaved(runs: dict[tuple[str, str], Callable[[], Any]], repeats: int, console: Console) -> Times:
    """Wall-clock and processor times (s) of each, taken in turn."""
    times: Times = {key: [] for key in runs}
    for number in track(range(repeats + WARM), "measuring", console=console, transient=True):
        for key, run in runs.items():
            wall, busy = time.perf_counter(), time.process_time()
            run()
            if number >= WARM:
                times[key].append((time.perf_counter() - wall, time.process_time() - busy))
    return times


def networks(variants: dict[str, Run], times: Times) -> dict[str, Any]:
    """Per variant the figures of each batch, and what a batch saves per picture (0..1)."""
    rows: dict[str, Any] = {}
    for name in variants:
        row: dict[str, Any] = {f"batch {n}": figures(times[name, f"batch {n}"], n) for n in BATCHES}
        one, many = (row[f"batch {n}"]["processor"] for n in (BATCHES[0], BATCHES[-1]))
        rows[name] = row | {"batch_saves": round(1 - many / one, 3)}
    return rows


def figures(seconds: list[tuple[float, float]], pictures: int) -> dict[str, float]:
    """Milliseconds per picture."""
    wall, busy = ([1000 * value / pictures for value in values] for values in zip(*seconds, strict=True))
    return {
        "median": round(statistics.median(wall), 2),
        "least": round(min(wall), 2),
        "processor": round(statistics.median(busy), 2),
    }


def judge(model: Path, int8: Path, pictures: Path, console: Console) -> dict[str, Any]:
    """What int8, calibrated on every third picture, and bf16 lose on the others."""
    card = read_card(model)
    known = []
    tree = find_pictures(pictures).told()
    files = [(file, label) for label in card.labels for file in tree.types.get(label, ())]
    for file, label in track(files, "pictures", console=console, transient=True):
        with contextlib.suppress(FrameError):  # unreadable
            known.append((card.preprocessing.cut_out(read_picture(file)), label))
    quantise.quantise_model(model, [cutout for cutout, _ in known[::3]], int8, overwrite=True)
    test = [one for number, one in enumerate(known) if number % 3]
    cutouts, truth = [cutout for cutout, _ in test], [label for _, label in test]
    before = quantise.answers(model, cutouts)
    after = {"onnxruntime int8": quantise.answers(int8, cutouts)}
    try:
        after["openvino int8"] = quantise.answers(int8, cutouts, "openvino")
        if "bf16" in precisions("openvino"):
            after["openvino bf16"] = quantise.answers(model, cutouts, "openvino", "bf16")
    except ConfigurationError as error:
        console.print(error.problems[0])
    return {name: asdict(quantise.loss_between(card, before, said, truth)) for name, said in after.items()}


def faster(precision: str) -> bool:
    """Whether the processor has instructions for it."""
    return any(flag in processor_flags() for flag in INSTRUCTIONS[precision])


def processor_flags() -> set[str]:
    """What the processor can do, as Linux names it; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


def processor() -> str:
    """Its name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def show(console: Console, result: dict[str, Any]) -> None:
    """Tables for people."""
    able = [name for name, has in result["instructions"].items() if has]
    console.print(f"{result['model']} on {result['processor']}; instructions for {', '.join(able) or 'f32 only'}")
    table = Table(
        "network, one thread",
        *(f"batch {n}" for n in BATCHES),
        f"{BATCHES[-1]} save",
        title="ms per picture: median, least, processor",
    )
    for name, row in result["network_ms_per_picture"].items():
        if isinstance(row, str):
            table.add_row(name, row)
        else:
            cells = ["{median:.1f}, {least:.1f}, {processor:.1f}".format(**row[f"batch {n}"]) for n in BATCHES]
            table.add_row(name, *cells, f"{row['batch_saves']:.0%}")
    console.print(table)
    table = Table("part, one view", "ms, median", "least", "processor")
    for name, row in result["parts_ms"].items():
        table.add_row(name, f"{row['median']:.2f}", f"{row['least']:.2f}", f"{row['processor']:.2f}")
    console.print(table)
    for name, row in result["loss"].items():
        console.print(
            f"{name}: {row['before']:.1%} right before, {row['after']:.1%} after, {row['changed']:.1%} changed, "
            f"probability by up to {row['probability']:.2f} ({row['pictures']} pictures)"
        )


if __name__ == "__main__":
    sys.exit(main())
