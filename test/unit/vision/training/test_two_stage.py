"""The paper's two-stage training, on a network of a few thousand weights."""

from __future__ import annotations

import csv
import multiprocessing
import os
import socket
import sys
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("torch")
if find_spec("timm") is None:
    pytest.skip("needs requirements/train.txt", allow_module_level=True)

import torch
from support.tiny_backbone import TinyBackbone

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.vision.training import two_stage
from battery_sorting.vision.training.two_stage import (
    ActivationCache,
    LabelledImages,
    TwoStage,
    TwoStageOptions,
    normalised,
)

LABELS = ("red", "green", "blue")
QUICK = TwoStageOptions(
    blocks=2, first_rate=0.1, second_rate=0.002, first_epochs=15, second_epochs=5, patience=6, batch=8, copies=1
)


def coloured(count, seed):
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % len(LABELS)
    pixels = rng.integers(0, 100, (count, 48, 96, 3))
    pixels[np.arange(count), :, :, targets] += 130
    return LabelledImages(pixels.astype(np.uint8), targets)


TRAIN, VAL = coloured(30, 1), coloured(9, 2)


def fit(options=QUICK, progress=None, cache=None):
    return TwoStage(TinyBackbone(), LABELS, options, cache).fit(TRAIN, VAL, progress)


def weights(fitted):
    return torch.cat([value.flatten().double() for value in fitted.network.state_dict().values()])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def fitted():
    return fit()


def test_learns_and_says_probabilities(fitted):
    test = coloured(30, 3)
    probabilities = fitted.probabilities(test.pixels)
    assert (probabilities.argmax(axis=1) == test.targets).mean() > 0.9
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert fitted.probabilities(test.pixels[:0]).shape == (0, 3)


def test_same_seed_gives_the_same_network_whatever_was_drawn_before(fitted):
    torch.rand(5)
    assert torch.equal(weights(fit()), weights(fitted))
    other = fit(TwoStageOptions(**{**vars_of(QUICK), "seed": 1}))
    assert not torch.equal(weights(other), weights(fitted))


def vars_of(options, **changed):
    return {name: getattr(options, name) for name in TwoStageOptions.__slots__} | changed


def test_only_the_last_blocks_and_the_head_learn_and_batch_norm_never_does():
    backbone = TinyBackbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    fitted = TwoStage(backbone, LABELS, QUICK).fit(TRAIN, VAL)
    after = fitted.network.state_dict()
    originals = two_stage.TwoStageNetwork(two_stage.units(TinyBackbone()), 12, 3).state_dict()
    changed = {name for name, value in originals.items() if not torch.equal(value, after[name])}
    # Units: 0 stem, 1..3 blocks, 4 last convolution; of each the 0th module is the convolution, the 1st batch norm.
    assert changed == {"units.3.0.weight", "units.3.0.bias", "units.4.0.weight", "units.4.0.bias"} | {
        "head.weight",
        "head.bias",
    }
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_network_without_knowledge_learns_batch_statistics_of_its_own():
    options = TwoStageOptions(**vars_of(QUICK, first_blocks=5, blocks=5, batch_norm="trained", copies=0))
    after = fit(options).network.state_dict()
    assert not torch.equal(after["units.0.1.running_mean"], torch.zeros(6))
    assert not torch.equal(after["units.0.0.weight"], TinyBackbone().conv_stem.weight)


def test_stages_follow_each_other_and_the_best_epoch_is_kept(fitted):
    for stage, most in ((1, 15), (2, 5)):
        epochs = [epoch for epoch in fitted.history if epoch.stage == stage]
        assert [epoch.epoch for epoch in epochs] == list(range(1, len(epochs) + 1))
        assert 1 <= len(epochs) <= most
    assert next(epoch.rate for epoch in fitted.history if epoch.stage == 2) == QUICK.second_rate
    said = fitted.probabilities(VAL.pixels).argmax(axis=1)
    assert (said == VAL.targets).mean() == pytest.approx(fitted.validation_accuracy)
    assert fitted.validation_accuracy >= max(epoch.val_accuracy for epoch in fitted.history)


def test_without_a_gain_a_stage_ends_after_exactly_the_patience():
    still = TwoStageOptions(**vars_of(QUICK, first_rate=0.0, second_rate=0.0, first_epochs=50, second_epochs=50))
    history = fit(still).history
    assert [sum(epoch.stage == stage for epoch in history) for stage in (1, 2)] == [6, 6]


@pytest.mark.parametrize("killed", [(1, 1), (1, 4), (2, 1), (2, 3)])
def test_killed_and_resumed_gives_the_same_network(killed, fitted, tmp_path):
    def kill(text, epochs):
        for epoch in epochs:
            if text.endswith(str(killed[0])) and epoch > killed[1]:
                raise KeyboardInterrupt
            yield epoch

    with pytest.raises(KeyboardInterrupt):
        fit(TwoStageOptions(**vars_of(QUICK, out=tmp_path)), kill)
    resumed = fit(TwoStageOptions(**vars_of(QUICK, out=tmp_path, resume=True)))
    assert torch.equal(weights(resumed), weights(fitted))
    said = [(epoch.stage, epoch.epoch, epoch.val_loss) for epoch in resumed.history]
    assert said == [(epoch.stage, epoch.epoch, epoch.val_loss) for epoch in fitted.history]
    with (tmp_path / "log.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(said)


def test_finished_training_is_not_done_again(fitted, tmp_path):
    fit(TwoStageOptions(**vars_of(QUICK, out=tmp_path)))
    again = fit(TwoStageOptions(**vars_of(QUICK, out=tmp_path, resume=True)), lambda _, epochs: epochs)
    assert torch.equal(weights(again), weights(fitted))
    assert len(again.history) == len(fitted.history)


def test_checkpoint_that_does_not_belong_or_cant_be_read_is_named(tmp_path):
    short = vars_of(QUICK, out=tmp_path, first_epochs=1, second_epochs=1)
    fit(TwoStageOptions(**short))
    with pytest.raises(ConfigurationError, match=r"checkpoint\.pt.*\n.*another training.*--resume"):
        fit(TwoStageOptions(**short | {"resume": True, "dropout": 0.5}))
    (tmp_path / "checkpoint.pt").write_bytes(b"cut off")
    with pytest.raises(ModelError, match=r"checkpoint\.pt: can't be read.*--resume"):
        fit(TwoStageOptions(**short | {"resume": True}))


def test_frozen_units_see_each_picture_once(monkeypatch):
    seen = []
    compute = two_stage.Frozen.__call__
    monkeypatch.setattr(two_stage.Frozen, "__call__", lambda self, x: seen.append(len(x)) or compute(self, x))
    cache = ActivationCache()
    fitted = fit(cache=cache)
    assert len(fitted.history) > 4
    assert sum(seen) == 2 * (30 * 2 + 9)  # two stages with borders of their own, each picture and its copy
    fit(cache=cache)
    fitted.probabilities(TRAIN.pixels, cache)
    assert sum(seen) == 2 * (30 * 2 + 9)


def test_cache_on_disk_gives_the_same_network(fitted, tmp_path):
    for _ in range(2):
        assert torch.equal(weights(fit(TwoStageOptions(**vars_of(QUICK, cache=tmp_path)))), weights(fitted))
    assert len(list(tmp_path.glob("*.npy"))) == 2 * (30 * 2 + 9)
    assert not list(tmp_path.glob("*.tmp"))


def test_cached_and_whole_network_agree(fitted):
    whole = fitted.probabilities(VAL.pixels)
    assert np.allclose(fitted.probabilities(VAL.pixels, ActivationCache()), whole, atol=2e-3)


def test_network_exports_and_onnxruntime_agrees_on_all_outputs(fitted, tmp_path):
    pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    names = ["probabilities", "logits", "embedding", "cam"]
    pixels = normalised(VAL.pixels, fitted.config).contiguous()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        torch.onnx.export(
            fitted.network,
            (pixels[:1],),
            str(tmp_path / "model.onnx"),
            input_names=["pixels"],
            output_names=names,
            dynamic_axes={name: {0: "n"} for name in ["pixels", *names]},
            opset_version=17,
            dynamo=False,
        )
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = fitted.network(pixels)
    for ours, theirs in zip(session.run(names, {"pixels": pixels.numpy()}), expected, strict=True):
        assert np.allclose(ours, theirs.numpy(), atol=1e-4)
    probabilities, logits, embedding, cam = (value.numpy() for value in expected)
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-4)
    # Grad-CAM in closed form: the mean of a type's map is its logit without the bias.
    bias = fitted.network.head.bias.detach().numpy()
    assert np.allclose(cam.mean(axis=(2, 3)) + bias, logits, atol=1e-4)
    assert np.allclose(probabilities, fitted.probabilities(VAL.pixels), atol=1e-5)


def test_backbone_and_head_of_the_result_stand_by_themselves(fitted):
    pixels = normalised(VAL.pixels, fitted.config)
    with torch.no_grad():
        pooled = fitted.network.forward_features(pixels).mean(dim=(2, 3)).numpy()
    assert np.allclose(fitted.head.logits(pooled), fitted.logits(VAL.pixels), atol=1e-5)


def test_tensorboard_gets_a_point_per_epoch_where_it_is_installed(monkeypatch, tmp_path):
    points = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path)

        def add_scalar(self, name, value, step):
            assert value >= 0
            points.append((name, step))

        def close(self):
            points.append("closed")

    stand_in = type(sys)("torch.utils.tensorboard")
    stand_in.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    fitted = fit(TwoStageOptions(**vars_of(QUICK, out=tmp_path, first_epochs=2, second_epochs=2)))
    assert ("val_accuracy", len(fitted.history)) in points
    assert points[-1] == "closed"


def test_settings_and_pictures_that_cant_be_used_are_named():
    with pytest.raises(ConfigurationError, match=r"--blocks: 6.*has 5"):
        TwoStage(TinyBackbone(), LABELS, TwoStageOptions(blocks=6))
    nothing = LabelledImages(TRAIN.pixels[:0], TRAIN.targets[:0])
    wrong = LabelledImages(VAL.pixels, VAL.targets + 1)
    with pytest.raises(
        ConfigurationError, match=r"training: 0 pictures(.|\n)*validation: labels go from 0 to 2, not 3"
    ):
        TwoStage(TinyBackbone(), LABELS, QUICK).fit(nothing, wrong)
    with pytest.raises(ConfigurationError, match=r"--device.*\n.*'gpu'.*auto"):
        fit(TwoStageOptions(device="gpu"))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match=r"no CUDA device"):
            fit(TwoStageOptions(device="cuda"))


def test_two_processes_learn_what_one_does(tmp_path):
    """As ``torchrun`` starts them. No dropout: which features it leaves out differs from process to process."""
    port = free_port()
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=learn_as_one_of_two, args=(rank, port, tmp_path)) for rank in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = weights(fit(shared_options(tmp_path / "alone")))
    assert torch.equal(first, second)
    assert torch.allclose(first, alone, atol=1e-4)
    with (tmp_path / "log.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


def learn_as_one_of_two(rank, port, folder):
    given = {
        "RANK": rank,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
    }
    os.environ.update({name: str(value) for name, value in given.items()})
    torch.save(weights(fit(shared_options(folder))), folder / f"{rank}.pt")


def shared_options(folder):
    settings = vars_of(QUICK, dropout=0.0, first_epochs=3, second_epochs=3, out=folder, cache=folder / "cache")
    return TwoStageOptions(**settings)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
