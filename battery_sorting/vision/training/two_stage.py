"""Two-stage transfer learning as in BatSort (arXiv 2404.05802, section IV-A).

Pooling, dropout and a dense layer stand on a pretrained backbone. In the first stage they learn at a large rate, in
the second the backbone's last blocks learn with them at a small one. What is frozen is computed once per picture
and kept (`ActivationCache`), so that an epoch costs seconds.

One command serves a processor, a GPU, and several GPUs: under ``torchrun`` each process takes its part of every
batch, and the processes agree on the gradients after each.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import importlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.vision.training.backbone import InputConfig, choose_device, input_config, units, weights_digest
from battery_sorting.vision.training.data import augment
from battery_sorting.vision.training.head import Head
from battery_sorting.vision.training.progress import Progress, no_progress

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
CHUNK = 32
"""Pictures that go through the frozen units, or through the whole network, at a time."""


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Pictures as the network sees them, uint8 RGB (n, height, width, 3), and their labels' numbers, int (n,)."""

    pixels: np.ndarray
    targets: np.ndarray

    def take(self, rows: np.ndarray) -> LabelledImages:
        """Those of ``rows``."""
        return LabelledImages(self.pixels[rows], self.targets[rows])


@dataclass(frozen=True, slots=True)
class TwoStageOptions:
    """Settings; the defaults are the paper's, where it names them.

    Attributes:
        blocks: Last blocks of the backbone that learn in the second stage.
        first_blocks: Those that learn already in the first.
        dropout: Fraction of the pooled features that is left out in training.
        patience: Epochs without a gain of validation accuracy after which a stage ends.
        batch: Pictures per step, over all processes.
        copies: Augmented versions of each picture; every epoch sees one of them or the picture itself.
        batch_norm: ``frozen`` keeps statistics and scales as they were pretrained; ``trained`` is for networks that
            start without knowledge, which need statistics of their own.
        device: ``auto``, or a name of torch: ``cpu``, ``cuda``, ``cuda:1``.
        out: Folder for the log and the checkpoint of each epoch; None writes neither.
        cache: Folder for the outputs of frozen units; None keeps them in memory.
        resume: Go on from the checkpoint in ``out``, if there is one.
    """

    blocks: int = 2
    first_blocks: int = 0
    dropout: float = 0.2
    first_rate: float = 0.005
    second_rate: float = 0.00005
    first_epochs: int = 300
    second_epochs: int = 100
    patience: int = 10
    batch: int = 32
    copies: int = 0
    batch_norm: Literal["frozen", "trained"] = "frozen"
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    cache: Path | None = None
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Epoch:
    """A line of the log. Losses in nats, accuracies 0..1; training figures are with dropout and augmentation."""

    stage: int
    epoch: int
    rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


class TwoStageNetwork(nn.Module):
    """Backbone, pooling, dense layer and softmax. Dropout is for training only and no part of it."""

    temperature: torch.Tensor

    def __init__(self, chain: Sequence[nn.Module], features: int, labels: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(chain)
        self.head = nn.Linear(features, labels)
        self.register_buffer("temperature", torch.ones(()))

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w), normalised → the last feature map (n, features, h', w'), as timm's networks give it."""
        maps = pixels
        for unit in self.units:
            maps = unit(maps)
        return maps

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the contract of models asks for.

        Args:
            pixels: (n, 3, h, w), normalised.

        Returns:
            Probabilities (n, labels), logits (n, labels), embedding (n, features) of unit length, and class
            activation maps (n, labels, h', w'), which are Grad-CAM's, since the head is linear in pooled features
            (Selvaraju et al. 2017, section 3.1).
        """
        maps = self.forward_features(pixels)
        pooled = maps.mean(dim=(2, 3))
        logits = self.head(pooled)
        embedding = pooled / (pooled.norm(dim=1, keepdim=True) + 1e-6)
        cam = torch.einsum("lf,nfhw->nlhw", self.head.weight, maps)
        return torch.softmax(logits / self.temperature, dim=1), logits, embedding, cam


class Freezer(Protocol):
    """Turns pictures into what is kept of them; ``identity`` changes when what it makes of them does."""

    identity: str

    def __call__(self, pixels: np.ndarray, /) -> np.ndarray:
        """uint8 (n, h, w, 3) → float16 (n, …)."""
        ...


class ActivationCache:
    """What frozen units make of pictures, float16, by the pictures' bytes: in memory, or in files under a folder.

    Several trainings may share one. Processes of one training share the work where there is a folder; else each
    does it for itself.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._kept: dict[str, np.ndarray] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def fill(self, frozen: Freezer, pictures: Iterable[np.ndarray], rank: int = 0, world: int = 1) -> list[str]:
        """Compute what is missing; returns the key of each picture, uint8 (h, w, 3)."""
        keys = []
        chunk: dict[str, np.ndarray] = {}
        for number, pixels in enumerate(pictures):
            key = hashlib.sha256(frozen.identity.encode() + pixels.tobytes()).hexdigest()
            keys.append(key)
            mine = self._folder is None or number % world == rank
            if mine and key not in chunk and not self._has(key):
                chunk[key] = pixels
            if len(chunk) == CHUNK:
                self._compute(frozen, chunk)
                chunk = {}
        if chunk:
            self._compute(frozen, chunk)
        return keys

    def take(self, keys: Sequence[str]) -> torch.Tensor:
        """float32 (n, …) of pictures that were filled in."""
        return torch.from_numpy(np.stack([self._get(key) for key in keys])).float()

    def _compute(self, frozen: Freezer, chunk: dict[str, np.ndarray]) -> None:
        for key, values in zip(chunk, frozen(np.stack(list(chunk.values()))), strict=True):
            if self._folder is None:
                self._kept[key] = values
                continue
            unfinished = self._folder / f"{key}.{os.getpid()}.tmp"
            with unfinished.open("wb") as file:
                np.save(file, values)
            unfinished.replace(self._file(key))

    def _has(self, key: str) -> bool:
        return key in self._kept if self._folder is None else self._file(key).exists()

    def _get(self, key: str) -> np.ndarray:
        return self._kept[key] if self._folder is None else np.asarray(np.load(self._file(key)))

    def _file(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.npy"


class Frozen:
    """The units that a stage leaves as they are: uint8 pictures → float16 activations, pooled if no unit learns."""

    def __init__(self, chain: Sequence[nn.Module], pooled: bool, config: InputConfig, device: torch.device) -> None:
        self._network = nn.Sequential(*chain).eval()
        self._pooled = pooled
        self._config = config
        self._device = device
        self.identity = f"{weights_digest(self._network)} {pooled} {config.mean} {config.std}"

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(n, h, w, 3) → (n, channels, h', w') or (n, channels)."""
        with torch.no_grad():
            maps = self._network(normalised(pixels, self._config).to(self._device))
            values = maps.mean(dim=(2, 3)) if self._pooled else maps
        return np.asarray(values.half().contiguous().cpu().numpy())


@dataclass(frozen=True, slots=True)
class FittedTwoStage:
    """What `TwoStage.fit` made. ``network`` takes normalised pixels and is what is exported."""

    network: TwoStageNetwork
    labels: tuple[str, ...]
    config: InputConfig
    history: tuple[Epoch, ...]
    blocks: int
    validation_accuracy: float

    @property
    def head(self) -> Head:
        """The dense layer by itself; `TwoStageNetwork.forward_features` is the backbone before it."""
        layer = self.network.head
        return Head(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())

    def probabilities(self, pixels: np.ndarray, cache: ActivationCache | None = None) -> np.ndarray:
        """float32 (n, labels), rows sum to 1, of uint8 pictures (n, h, w, 3); see `logits`."""
        logits = torch.from_numpy(self.logits(pixels, cache)) / self.network.temperature
        return np.asarray(torch.softmax(logits, dim=1).numpy())

    def logits(self, pixels: np.ndarray, cache: ActivationCache | None = None) -> np.ndarray:
        """float32 (n, labels); what ``cache`` holds of the frozen units isn't computed again."""
        chunks = [pixels[start : start + CHUNK] for start in range(0, len(pixels), CHUNK)]
        if not chunks:
            return np.zeros((0, len(self.labels)), np.float32)
        with torch.no_grad():
            if cache is None:
                outputs = [self.network(normalised(chunk, self.config))[1] for chunk in chunks]
            else:
                frozen, tail = _cut(self.network, self.blocks, self.config, torch.device("cpu"))
                outputs = [tail(cache.take(cache.fill(frozen, chunk))) for chunk in chunks]
        return np.asarray(torch.cat(outputs).numpy())


class TwoStage:
    """Fits the paper's head on a backbone. The backbone that is given stays as it is.

    Args:
        backbone: A network that `backbone.units` can cut into blocks.
        labels: Names of the types, in the order of the targets.
        options: See `TwoStageOptions`.
        cache: Shared with other trainings; else one of its own.
    """

    def __init__(
        self,
        backbone: nn.Module,
        labels: Sequence[str],
        options: TwoStageOptions | None = None,
        cache: ActivationCache | None = None,
    ) -> None:
        self._labels = tuple(labels)
        self._options = options or TwoStageOptions()
        self._config = input_config(backbone)
        chain = units(copy.deepcopy(backbone))
        self._network = TwoStageNetwork(chain, int(getattr(backbone, "num_features", 0)), len(self._labels))
        self._cache = cache or ActivationCache(self._options.cache)
        if not 0 <= max(self._options.blocks, self._options.first_blocks) <= len(chain):
            problem = f"--blocks: {self._options.blocks} can't learn; the backbone has {len(chain)}"
            raise ConfigurationError(type(backbone).__name__, [problem])

    def fit(self, train: LabelledImages, val: LabelledImages, progress: Progress | None = None) -> FittedTwoStage:
        """Both stages.

        Args:
            train: Pictures to learn from.
            val: Pictures of the same size by which stages end, and the best epoch is chosen.
            progress: Called with a text and the epochs to come.

        Raises:
            ConfigurationError: Pictures or settings that can't be used, or a checkpoint of another training.
            ModelError: An unreadable checkpoint.
        """
        _check(train, val, len(self._labels))
        with _processes(self._options.device) as processes:
            training = _Training(self._network, self._config, self._options, self._cache, processes)
            training.run(train, val, progress if progress and processes.leads else no_progress)
        network = self._network.cpu().eval()
        return FittedTwoStage(
            network,
            self._labels,
            self._config,
            tuple(training.history),
            max(self._options.blocks, self._options.first_blocks),
            training.best_accuracy,
        )


def normalised(pixels: np.ndarray, config: InputConfig) -> torch.Tensor:
    """float32 (n, 3, h, w) of uint8 (n, h, w, 3), in the layout in which processors convolve fastest."""
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255)
    scaled.sub_(torch.tensor(config.mean)).div_(torch.tensor(config.std))
    return scaled.permute(0, 3, 1, 2)


def leads() -> bool:
    """Whether this process is the one of a training that writes and prints; true without ``torchrun``."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True, slots=True)
class _Stage:
    number: int
    rate: float
    epochs: int
    blocks: int


class _Tail(nn.Module):
    """What learns in a stage: activations of the frozen units → logits."""

    def __init__(self, chain: Sequence[nn.Module], head: nn.Linear, dropout: float) -> None:
        super().__init__()
        self.units = nn.Sequential(*chain)
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        if activations.ndim == 2:
            return self._logits(activations)
        maps = self.units(activations.contiguous(memory_format=torch.channels_last))
        return self._logits(maps.mean(dim=(2, 3)))

    def _logits(self, pooled: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.dropout(pooled))
        return logits


@dataclass(frozen=True, slots=True)
class _Processes:
    """This process among those of one training."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        if self.world > 1:
            torch.distributed.barrier()

    def agree(self, values: tuple[float, float]) -> tuple[float, float]:
        """The leader's values, so that all processes stop at the same epoch."""
        if self.world == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, 0)
        first, second = shared.tolist()
        return first, second


@dataclass(frozen=True, slots=True)
class _Keys:
    """Keys into the cache: (versions, pictures), the picture itself first; and the targets."""

    versions: list[list[str]]
    targets: torch.Tensor


class _Training:
    """One run of both stages, and all that a checkpoint must hold of it."""

    def __init__(
        self,
        network: TwoStageNetwork,
        config: InputConfig,
        options: TwoStageOptions,
        cache: ActivationCache,
        processes: _Processes,
    ) -> None:
        self._network = network.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._config = config
        self._options = options
        self._cache = cache
        self._processes = processes
        self._stages = (
            _Stage(1, options.first_rate, options.first_epochs, options.first_blocks),
            _Stage(2, options.second_rate, options.second_epochs, options.blocks),
        )
        self._tensorboard: Any = None
        self.history: list[Epoch] = []
        self.best_accuracy = -1.0
        self._best_loss = float("inf")
        self._best: dict[str, torch.Tensor] = {}
        self._waited = 0

    def run(self, train: LabelledImages, val: LabelledImages, progress: Progress) -> None:
        self._start_head()
        identity = _identity(self._network, self._options, train, val) if self._options.out else ""
        saved = self._read_checkpoint(identity)
        with self._logs():
            for stage in self._stages:
                if saved is None or saved["stage"] <= stage.number:
                    self._run_stage(stage, train, val, progress, identity, saved)
                    saved = None

    def _run_stage(
        self,
        stage: _Stage,
        train: LabelledImages,
        val: LabelledImages,
        progress: Progress,
        identity: str,
        saved: dict[str, Any] | None,
    ) -> None:
        if saved is not None:
            self._restore(saved)
        frozen, tail = _cut(
            self._network, stage.blocks, self._config, self._processes.device, self._options.dropout
        )
        learning = self._unfreeze(tail)
        optimiser = torch.optim.Adam(learning, lr=stage.rate)
        keys, val_keys = self._keys(frozen, train), self._keys(frozen, val, copies=0)
        if saved is not None and saved["stage"] == stage.number:
            optimiser.load_state_dict(saved["optimiser"])
        else:
            self._begin(*self._judge(tail, val_keys))
        step = self._shared(tail)
        done = sum(epoch.stage == stage.number for epoch in self.history)
        for number in progress(f"stage {stage.number}", range(done + 1, stage.epochs + 1)):
            if self._waited >= self._options.patience:
                break
            started = time.perf_counter()
            loss, accuracy = self._learn(step, tail, optimiser, keys, stage, number)
            val_loss, val_accuracy = self._judge(tail, val_keys)
            self._note(val_loss, val_accuracy)
            seconds = time.perf_counter() - started
            epoch = Epoch(stage.number, number, stage.rate, loss, accuracy, val_loss, val_accuracy, seconds)
            self._write(epoch, identity, optimiser)
            if self._waited >= self._options.patience:
                break
        self._network.load_state_dict(self._best, strict=False)

    def _start_head(self) -> None:
        """As Keras starts a dense layer, which the paper used: Glorot's uniform weights, no bias."""
        generator = torch.Generator().manual_seed(self._options.seed)
        weight = torch.empty(self._network.head.weight.shape)
        nn.init.xavier_uniform_(weight, generator=generator)
        with torch.no_grad():
            self._network.head.weight.copy_(weight)
            self._network.head.bias.zero_()

    def _unfreeze(self, tail: _Tail) -> list[nn.Parameter]:
        self._network.requires_grad_(False)
        tail.requires_grad_(True)
        if self._options.batch_norm == "frozen":
            for module in tail.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.requires_grad_(False)
        return [parameter for parameter in tail.parameters() if parameter.requires_grad]

    def _shared(self, tail: _Tail) -> nn.Module:
        if self._processes.world == 1:
            return tail
        return nn.parallel.DistributedDataParallel(tail)

    def _keys(self, frozen: Frozen, examples: LabelledImages, copies: int | None = None) -> _Keys:
        copies = self._options.copies if copies is None else copies
        versions = []
        for version in range(copies + 1):
            pictures = _version(examples.pixels, version, self._options.seed)
            versions.append(self._cache.fill(frozen, pictures, self._processes.rank, self._processes.world))
        self._processes.wait()
        return _Keys(versions, torch.from_numpy(np.asarray(examples.targets, np.int64)))

    def _learn(
        self,
        step: nn.Module,
        tail: _Tail,
        optimiser: torch.optim.Optimizer,
        keys: _Keys,
        stage: _Stage,
        number: int,
    ) -> tuple[float, float]:
        """One epoch; loss and accuracy of what this process saw."""
        rng = np.random.default_rng([self._options.seed, stage.number, number])
        chosen = rng.integers(len(keys.versions), size=len(keys.targets))
        tail.train(self._options.batch_norm == "trained")
        tail.dropout.train()
        total = right = seen = 0.0
        with _seeded(int(rng.integers(2**31)) + self._processes.rank, self._processes.device):
            for rows in self._batches(rng.permutation(len(keys.targets))):
                activations = self._cache.take([keys.versions[chosen[row]][row] for row in rows])
                targets = keys.targets[rows].to(self._processes.device)
                logits = step(activations.to(self._processes.device))
                loss = cross_entropy(logits, targets)
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
                total += float(loss.detach()) * len(rows)
                right += float((logits.detach().argmax(dim=1) == targets).sum())
                seen += len(rows)
        tail.eval()
        return total / seen, right / seen

    def _batches(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """This process's part of each batch; the parts are of one size, as their gradients are averaged."""
        world = self._processes.world
        order = np.resize(order, -(-len(order) // world) * world)
        size = -(-self._options.batch // world) * world
        for start in range(0, len(order), size):
            part = order[start : start + size][self._processes.rank :: world]
            if len(part) > 1 or start == 0:  # one picture alone has no batch statistics
                yield part

    def _judge(self, tail: _Tail, keys: _Keys) -> tuple[float, float]:
        """Loss and accuracy on validation pictures."""
        tail.eval()
        outputs = []
        with torch.no_grad():
            for start in range(0, len(keys.targets), CHUNK):
                activations = self._cache.take(keys.versions[0][start : start + CHUNK])
                outputs.append(tail(activations.to(self._processes.device)).cpu())
        logits = torch.cat(outputs)
        accuracy = float((logits.argmax(dim=1) == keys.targets).double().mean())
        return self._processes.agree((float(cross_entropy(logits, keys.targets)), accuracy))

    def _begin(self, loss: float, accuracy: float) -> None:
        """A stage must do better than what it starts from."""
        self._best_loss, self.best_accuracy, self._waited = loss, accuracy, 0
        self._best = self._learned()

    def _note(self, loss: float, accuracy: float) -> None:
        """Keep the best weights: most accurate, and of those the ones with the least loss."""
        gained = accuracy > self.best_accuracy
        self._waited = 0 if gained else self._waited + 1
        if gained or (accuracy == self.best_accuracy and loss < self._best_loss):
            self._best_loss, self.best_accuracy, self._best = loss, accuracy, self._learned()

    def _learned(self) -> dict[str, torch.Tensor]:
        """Copy of what may differ from the backbone: the units that learn in any stage, and the head."""
        first = len(self._network.units) - max(stage.blocks for stage in self._stages)
        return {
            name: value.detach().clone()
            for name, value in self._network.state_dict().items()
            if name.startswith("head.") or (name.startswith("units.") and int(name.split(".")[1]) >= first)
        }

    @contextmanager
    def _logs(self) -> Iterator[None]:
        out = self._options.out
        if out is None or not self._processes.leads:
            yield
            return
        out.mkdir(parents=True, exist_ok=True)
        try:
            writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError:
            yield
            return
        self._tensorboard = writer(str(out))
        try:
            yield
        finally:
            self._tensorboard.close()

    def _write(self, epoch: Epoch, identity: str, optimiser: torch.optim.Optimizer) -> None:
        self.history.append(epoch)
        if self._options.out is None or not self._processes.leads:
            return
        _write_log(self._options.out / LOG, self.history)
        if self._tensorboard is not None:
            for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
                self._tensorboard.add_scalar(name, getattr(epoch, name), len(self.history))
        state = {
            "identity": identity,
            "stage": epoch.stage,
            "learned": self._learned(),
            "optimiser": optimiser.state_dict(),
            "best": self._best,
            "best_accuracy": self.best_accuracy,
            "best_loss": self._best_loss,
            "waited": self._waited,
            "history": [asdict(epoch) for epoch in self.history],
        }
        unfinished = self._options.out / f"{CHECKPOINT}.tmp"
        torch.save(state, unfinished)
        unfinished.replace(self._options.out / CHECKPOINT)

    def _read_checkpoint(self, identity: str) -> dict[str, Any] | None:
        if self._options.out is None or not self._options.resume:
            return None
        path = self._options.out / CHECKPOINT
        if not path.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(path, map_location=self._processes.device, weights_only=True)
            same = saved["identity"] == identity
        except Exception as error:  # torch.load raises many kinds for a file that isn't one
            raise ModelError(f"{path}: can't be read ({type(error).__name__}); train without --resume") from error
        if not same:
            problem = "belongs to another training (settings, pictures or backbone differ)"
            raise ConfigurationError(str(path), [f"{problem}; train without --resume, or into another folder"])
        return saved

    def _restore(self, saved: dict[str, Any]) -> None:
        self._network.load_state_dict(saved["learned"], strict=False)
        self._best = saved["best"]
        self.best_accuracy, self._best_loss = saved["best_accuracy"], saved["best_loss"]
        self._waited = saved["waited"]
        self.history = [Epoch(**epoch) for epoch in saved["history"]]


def _cut(
    network: TwoStageNetwork, blocks: int, config: InputConfig, device: torch.device, dropout: float = 0.0
) -> tuple[Frozen, _Tail]:
    """The network in two: what stays and what learns. The modules are the network's own."""
    chain = list(network.units)
    border = len(chain) - blocks
    return Frozen(chain[:border], blocks == 0, config, device), _Tail(chain[border:], network.head, dropout).eval()


def _version(pixels: np.ndarray, version: int, seed: int) -> Iterator[np.ndarray]:
    """The pictures themselves, or their ``version``-th augmented copies."""
    for number, picture in enumerate(pixels):
        yield augment(picture, np.random.default_rng([seed, number, version])) if version else picture


@contextmanager
def _processes(device: str) -> Iterator[_Processes]:
    """Joins the other processes of the training, if ``torchrun`` started some."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = choose_device(device)
    if world == 1:
        yield _Processes(0, 1, chosen)
        return
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield _Processes(rank, world, chosen)
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout as ``seed`` says; the caller's random numbers go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _check(train: LabelledImages, val: LabelledImages, labels: int) -> None:
    problems = []
    for name, examples in (("training", train), ("validation", val)):
        if len(examples.pixels) == 0 or len(examples.pixels) != len(examples.targets):
            problems.append(f"{name}: {len(examples.pixels)} pictures, {len(examples.targets)} labels")
        elif examples.targets.min() < 0 or examples.targets.max() >= labels:
            problems.append(f"{name}: labels go from 0 to {labels - 1}, not {examples.targets.max()}")
    if not problems and train.pixels.shape[1:] != val.pixels.shape[1:]:
        problems.append(f"sizes differ: training {train.pixels.shape[1:]}, validation {val.pixels.shape[1:]}")
    if problems:
        raise ConfigurationError("training pictures", problems)


def _identity(
    network: TwoStageNetwork, options: TwoStageOptions, train: LabelledImages, val: LabelledImages
) -> str:
    """Changes when anything changes that the result depends on."""
    elsewhere = {"out", "cache", "resume", "device"}
    digest = hashlib.sha256(weights_digest(network).encode())
    digest.update(repr({key: value for key, value in asdict(options).items() if key not in elsewhere}).encode())
    for examples in (train, val):
        digest.update(examples.pixels.tobytes())
        digest.update(np.asarray(examples.targets, np.int64).tobytes())
    return digest.hexdigest()


def _write_log(path: Path, history: list[Epoch]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        for epoch in history:
            row = asdict(epoch)
            writer.writerow(
                {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
            )
