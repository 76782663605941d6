"""Views of pictures as the frozen network sees them: computed once, kept, and all that heads are fitted to."""

from __future__ import annotations

import copy
import hashlib
import inspect
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import onnxruntime as ort
import torch

from battery_sorting.core.beside import check_writable
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.types import OTHERS
from battery_sorting.vision import colour, deep_pictures, pictures, preprocessing, reading
from battery_sorting.vision.arrays import read_arrays
from battery_sorting.vision.pictures import Photograph
from battery_sorting.vision.preprocessing import Cutout, Preprocessing
from battery_sorting.vision.reading import TEXT_FEATURES, Reader, text_features
from battery_sorting.vision.training import data
from battery_sorting.vision.training.backbone import choose_device, weights_digest
from battery_sorting.vision.training.data import Studio
from battery_sorting.vision.training.onnx_files import export_onnx
from battery_sorting.vision.training.progress import Progress, no_progress

log = logging.getLogger(__name__)

T = TypeVar("T")

VIEWS_FILE = "views.npz"
"""What a head was fitted to, beside the model: a new type can be added without the old pictures."""
PLAIN, LOOK, TURNED, AUGMENTED = "plain", "second look", "turned", "augmented"
BACKGROUND, BELT, DRAWN = "background", "belt", "drawn"
JUNK, NOTHING = "junk", "nothing"
"""Kinds of views: a photograph as it is, at a second look (`Preprocessing.second_look`), its flips, disturbed,
before another background, laid on a rendered belt, drawn batteries; what is no battery by itself; and pictures in
which the cut-out finds nothing, which the classifier refuses."""


Cutouts: TypeAlias = "list[tuple[str, Cutout]]"
"""Cut-outs with their kinds."""


@dataclass(frozen=True, slots=True)
class ViewTable:
    """One row per view.

    Attributes:
        features: float32 (n, d), the backbone's pooled last layer.
        colour: float32 (n, k), `colour_histogram`.
        label: (n,) str.
        kind: (n,) str, one of the kinds above.
        picture: (n,) str: FOLDER/FILE of the photograph, or what was drawn.
        sha256: (n,) str, of the photograph's bytes; empty for drawings.
        text: float16 (n, `TEXT_FEATURES`), what is printed on the battery, as it could be read; zeros: not at all.
    """

    features: np.ndarray
    colour: np.ndarray
    label: np.ndarray
    kind: np.ndarray
    picture: np.ndarray
    sha256: np.ndarray
    text: np.ndarray = None  # type: ignore[assignment]  # becomes zeros

    def __post_init__(self) -> None:
        if self.text is None:
            object.__setattr__(self, "text", np.zeros((len(self.label), TEXT_FEATURES), np.float16))

    def __len__(self) -> int:
        return len(self.label)

    def where(self, rows: np.ndarray) -> ViewTable:
        """The views in ``rows``: a mask or numbers."""
        return ViewTable(*(getattr(self, field.name)[rows] for field in fields(self)))

    def of_kind(self, *kinds: str) -> ViewTable:
        """The views of these kinds."""
        return self.where(np.isin(self.kind, kinds))

    def save(self, path: Path) -> None:
        """Write them small: a byte per number, on a scale of its own for every feature."""
        least = self.features.min(axis=0)
        step = np.maximum(self.features.max(axis=0) - least, 1e-6) / 255
        np.savez_compressed(
            path,
            features=np.round((self.features - least) / step).astype(np.uint8),
            least=least,
            step=step,
            colour=self.colour.astype(np.float16),
            text=np.round(self.text.astype(np.float32) * 255).astype(np.uint8),
            **{name: getattr(self, name).astype(str) for name in ("label", "kind", "picture", "sha256")},
        )

    @classmethod
    def load(cls, path: Path) -> ViewTable:
        """Read what `save` has written.

        Raises:
            ModelError: The file is missing or damaged.
        """
        try:
            kept = read_arrays(path)
            features = kept["least"] + kept["step"] * kept["features"]
            names = {name: kept[name].astype(object) for name in ("label", "kind", "picture", "sha256")}
            views = cls(features.astype(np.float32), kept["colour"].astype(np.float32), **names)
            if "text" not in kept:  # older models didn't read
                return views
            return replace(views, text=(kept["text"] / 255).astype(np.float16))
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"{path}: training views can't be read ({error}); restore the file or train from pictures (--data)"
            ) from error

    @staticmethod
    def joined(parts: Sequence[ViewTable]) -> ViewTable:
        """All of them, one after the other."""
        return ViewTable(
            *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(ViewTable))
        )


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """How many views are made of a photograph beside itself and its flips, and with which seed."""

    augmented: int = 6
    background: int = 1
    belt: int = 3
    seed: int = 0


class Extractor:
    """Features of cut-outs by the frozen backbone: onnxruntime on a CPU (twice as fast as torch), else CUDA.

    Args:
        network: Backbone, see `backbone.load_backbone`.
        preprocessing: Size and normalisation of its input.
        device: ``cpu``, ``cuda``, or ``auto``: CUDA where there is any.
    """

    def __init__(self, network: torch.nn.Module, preprocessing: Preprocessing, device: str = "auto") -> None:
        self.preprocessing = preprocessing
        self._device = choose_device(device)
        pooled = _Pooled(network).eval()
        self.identity = _identity(pooled, preprocessing)
        if self._device.type == "cpu":
            self._session = _session(pooled, preprocessing)
        else:  # a copy: the caller's network is written as ONNX later, and stays where it is
            self._pooled = copy.deepcopy(pooled).to(self._device)

    def __call__(self, cutouts: Sequence[Cutout]) -> tuple[np.ndarray, np.ndarray]:
        """float32 (n, d) features and (n, k) colour histograms of n cut-outs."""
        pixels = [self.preprocessing.normalise(cutout.pixels) for cutout in cutouts]
        colours = np.stack([colour.colour_histogram(cutout) for cutout in cutouts])
        if self._device.type == "cpu":  # one by one: a batch is no faster on a CPU and takes memory
            features = np.concatenate([self._session.run(None, {"pixels": one})[0] for one in pixels])
        else:
            with torch.no_grad():
                batch = torch.from_numpy(np.concatenate(pixels)).to(self._device)
                features = self._pooled(batch).float().cpu().numpy()
        return features, colours


class _File:
    """A photograph's file, which is decoded once, where it is needed at all."""

    def __init__(self, photograph: Photograph) -> None:
        self.photograph = photograph
        try:
            content = photograph.path.read_bytes()
        except OSError:
            content = b""  # named by read_photograph
        self.sha256 = hashlib.sha256(content).hexdigest()

    @cached_property
    def pixels(self) -> np.ndarray | None:
        """None where it can't be read."""
        return data.read_photograph(self.photograph.path, bits=self.photograph.bits)


class ViewMaker:
    """Makes views of photographs and drawings, several at a time, and keeps what it has made.

    Args:
        extractor: Gives the features.
        studio: Lays photographs on belts and draws.
        plan: Which views are made of a photograph.
        threads: Pictures at work at a time.
        cache: Folder that keeps features, so that a run that was cut short goes on where it was, and a second one
            takes seconds; None: nothing is kept. What is kept is known by content: picture, code, weights, plan.
        progress: Shows how far it got.
        reader: Reads what is printed on photographed batteries (on drawn ones there is little); None: nobody does.
    """

    def __init__(
        self,
        extractor: Extractor,
        studio: Studio,
        plan: ViewPlan,
        threads: int = 1,
        cache: Path | None = None,
        progress: Progress = no_progress,
        reader: Reader | None = None,
    ) -> None:
        self.studio = studio
        self._reader = reader
        self._code = _digest_of(reading, preprocessing, data)
        self._extractor, self._plan = extractor, plan
        self._threads, self._cache, self._progress = threads, cache, progress

    def photographs(self, photographs: Sequence[Photograph], text: str = "photographs") -> ViewTable:
        """Views of every photograph that can be read.

        Raises:
            ConfigurationError: Not one can be read.
        """
        return self._gather(text, photographs, self._of_photograph)

    def drawings(self, wanted: Sequence[tuple[str, str, int]], text: str = "drawings") -> ViewTable:
        """Views of drawn batteries, given as (what is drawn, label, seed); an empty name draws a bare belt."""
        return self._gather(text, wanted, self._of_drawing)

    def drawn_junk(self, each: int) -> ViewTable:
        """One view of each of so many drawings of every kind of junk, where the cut-out finds something."""
        wanted = [(kind, number) for number in range(each) for kind in data.JUNK_KINDS]
        return self._gather("drawn junk", wanted, self._of_junk)

    def photographed_junk(self, photographs: Sequence[Photograph]) -> ViewTable:
        """One view of every picture that can be read and in which the cut-out finds something.

        Raises:
            ConfigurationError: Not one can be read.
        """
        looks = self.looks(photographs, "junk").of_kind(PLAIN)
        return replace(looks, kind=np.full(len(looks), JUNK, object))

    def disturbed(self, photographs: Sequence[Photograph], name: str) -> ViewTable | None:
        """First and second look at every photograph after `data.DISTURBANCES` ``name``, where it can be done."""

        def cutouts(pixels: np.ndarray, _number: int) -> Cutouts | None:
            changed = data.DISTURBANCES[name](pixels)
            return None if changed is None else self._looks(changed)

        made = list(self._map(name, photographs, lambda one: self._of_file(_File(one), name, cutouts)))
        return ViewTable.joined(made) if made else None

    def looks(self, photographs: Sequence[Photograph], text: str) -> ViewTable:
        """First and second look at every picture that can be read; of kind `NOTHING` what the classifier refuses.

        Raises:
            ConfigurationError: Not one can be read.
        """

        def cutouts(pixels: np.ndarray, _number: int) -> Cutouts:
            looks = self._looks(pixels)
            return looks if looks[0][1].foreground != "none" else [(NOTHING, looks[0][1])]

        return self._gather(text, photographs, lambda one: self._of_file(_File(one), "looks", cutouts))

    def _gather(self, text: str, wanted: Sequence[T], make: Callable[[T], ViewTable | None]) -> ViewTable:
        made = list(self._map(text, wanted, make))
        if not made:
            raise ConfigurationError(text, ["not one picture can be read; see the warnings above"])
        if len(made) < len(wanted):
            log.warning("%s: %d of %d are left out, see above", text, len(wanted) - len(made), len(wanted))
        return ViewTable.joined(made)

    def _map(self, text: str, wanted: Sequence[T], make: Callable[[T], ViewTable | None]) -> Iterator[ViewTable]:
        with ThreadPoolExecutor(self._threads) as pool:
            pending = [pool.submit(make, one) for one in wanted]
            try:
                for future in self._progress(text, pending):
                    views = future.result()
                    if views is not None:
                        yield views
            finally:
                pool.shutdown(cancel_futures=True)

    def _of_photograph(self, photograph: Photograph) -> ViewTable | None:
        file = _File(photograph)
        views = self._of_file(file, str(self._plan), self._cutouts)
        if views is None or self._reader is None:
            return views

        # Read once: words are the same however the battery is turned and lit, and whatever it lies on.
        text = self._text_on(file)
        return replace(views, text=np.repeat(text[None], len(views), axis=0))

    def _text_on(self, file: _File) -> np.ndarray:
        """`text_features` of a photograph, from the cache where they are there."""
        assert self._reader is not None
        kept = self._place(f"{file.sha256}{file.photograph.depth} {self._reader.identity} {self._code}")
        if kept is not None and kept.exists():
            try:
                with np.load(kept, allow_pickle=False) as stored:
                    return np.asarray(stored["text"])
            except Exception:  # cut short, as in _kept
                kept.unlink(missing_ok=True)
        assert file.pixels is not None  # its views are there
        text = text_features(self._reader.read(file.pixels, self._extractor.preprocessing)).astype(np.float16)
        if kept is not None:
            _write(kept, text=text)
        return text

    def _of_file(
        self, file: _File, what: str, cutouts: Callable[[np.ndarray, int], Cutouts | None]
    ) -> ViewTable | None:
        """Views of a photograph: what ``cutouts`` makes of its pixels and its number; kept by its content."""

        def make() -> Cutouts | None:
            return None if file.pixels is None else cutouts(file.pixels, int(file.sha256[:8], 16))

        kept = self._kept(f"{file.sha256}{file.photograph.depth} {what}", make)
        if kept is None:
            return None
        return _labelled(*kept, file.photograph.label, file.photograph.name, file.sha256)

    def _cutouts(self, pixels: np.ndarray, number: int) -> Cutouts:
        plan = self._plan
        rng = np.random.default_rng([plan.seed, number])
        views = self._looks(pixels)
        plain = views[0][1]
        views += [(TURNED, flip) for flip in data.flips(plain)]
        views += [(AUGMENTED, data.augment_cutout(plain, rng)) for _ in range(plan.augmented)]
        for _ in range(plan.background):
            moved = data.on_background(pixels, rng)
            if moved is not None:
                views.append((BACKGROUND, self._extractor.preprocessing.cut_out(moved)))
        for _ in range(plan.belt):
            views.append((BELT, self.studio.on_belt(pixels, int(rng.integers(2**31)))))
        return views

    def _of_drawing(self, wanted: tuple[str, str, int]) -> ViewTable | None:
        what, label, seed = wanted

        def make() -> Cutouts:
            drawn = self.studio.drawn(what, seed) if what else self.studio.empty(seed)
            augmented = data.augment_cutout(drawn, np.random.default_rng([self._plan.seed, seed]))
            return [(DRAWN, drawn), (AUGMENTED, augmented)]

        kept = self._kept(f"drawn {what} {seed} {self.studio.seed} {self._plan.seed}", make)
        assert kept is not None
        return _labelled(*kept, label, f"drawn/{what or 'bare belt'} {seed}", "")

    def _of_junk(self, wanted: tuple[str, int]) -> ViewTable | None:
        kind, number = wanted

        def make() -> Cutouts:
            cutout = self.studio.junk(kind, number)
            return [(NOTHING if cutout.foreground == "none" else JUNK, cutout)]

        kept = self._kept(f"junk {kind} {number} {self.studio.seed}", make)
        assert kept is not None
        return _labelled(*kept, OTHERS, f"drawn/{kind} {number}", "").of_kind(JUNK)

    def _looks(self, pixels: np.ndarray) -> Cutouts:
        """What the classifier sees of a picture: the cut-out, and a second, stricter one if there is any."""
        preprocessing = self._extractor.preprocessing
        first, second = preprocessing.cut_out(pixels), preprocessing.second_look(pixels)
        return [(PLAIN, first), (LOOK, second)] if second.foreground == "object" else [(PLAIN, first)]

    def _kept(
        self, what: str, make: Callable[[], Cutouts | None]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Features, colours and kinds, from the cache where they are there."""
        path = self._place(f"{what} {self._extractor.identity}")
        if path is not None and path.exists():
            try:
                with np.load(path, allow_pickle=False) as kept:
                    return kept["features"], kept["colour"], kept["kind"]
            except Exception:  # cut short by a crash or a full disk, in whatever way: made anew
                path.unlink(missing_ok=True)
        made = make()
        if made is None:
            return None
        features, colours = self._extractor([cutout for _, cutout in made])
        kinds = np.array([kind for kind, _ in made])
        if path is not None:
            _write(path, features=features, colour=colours, kind=kinds)
        return features, colours, kinds

    def _place(self, content: str) -> Path | None:
        """Where the cache keeps what is known by ``content``; None: nothing is kept."""
        key = hashlib.sha256(content.encode()).hexdigest()
        return None if self._cache is None else self._cache / key[:2] / f"{key}.npz"


def default_cache() -> Path | None:
    """Where features are kept unless another folder is named; None where there is no home that can be written."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        folder = Path(root) / "battery_sorting" / "features"
        check_writable(folder)
    except (RuntimeError, ConfigurationError):  # a second run takes as long as the first, that is all
        return None
    return folder


class _Pooled(torch.nn.Module):
    """Backbone and global average pooling."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) normalised → (n, d)."""
        network: Any = self.network
        pooled: torch.Tensor = network.forward_features(pixels).mean(dim=(2, 3))
        return pooled


def _session(pooled: torch.nn.Module, size: Preprocessing) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.onnx"
        export_onnx(pooled, [torch.zeros(1, 3, size.height, size.width)], path, ["features"])
        return ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def _identity(network: torch.nn.Module, size: Preprocessing) -> str:
    """Changes with the weights, the preprocessing's settings, and the code that makes views."""
    own = f"{size.model_dump_json()}{weights_digest(network)}"
    return hashlib.sha256(
        f"{own}{_digest_of(preprocessing, colour, data, pictures, deep_pictures)}".encode()
    ).hexdigest()


def _digest_of(*modules: ModuleType) -> str:
    return hashlib.sha256("".join(inspect.getsource(module) for module in modules).encode()).hexdigest()


def _labelled(
    features: np.ndarray, colours: np.ndarray, kinds: np.ndarray, label: str, picture: str, sha256: str
) -> ViewTable:
    rows = len(features)
    return ViewTable(
        features.astype(np.float32),
        colours.astype(np.float32),
        np.full(rows, label, object),
        kinds.astype(object),
        np.full(rows, picture, object),
        np.full(rows, sha256, object),
    )


def _write(path: Path, **arrays: np.ndarray) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    Path(file.name).replace(path)
