"""A model in 8-bit integers: smaller by a factor of four, faster where the processor has instructions for it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from battery_sorting.core.errors import ModelError
from battery_sorting.core.strict_json import to_json
from battery_sorting.vision.card import CARD_FILE, WEIGHTS_FILE, ModelCard, check_file, check_weights, read_card
from battery_sorting.vision.colour import colour_histogram
from battery_sorting.vision.engine import Backend, Engine, Precision, open_engine
from battery_sorting.vision.preprocessing import Cutout
from battery_sorting.vision.training.new_model import new_model
from battery_sorting.vision.training.padding import with_static_padding

MAX_LOSS = 0.005
"""Of right answers (0..1) that 8 bits may cost; more, and the outermost layers stay in floating point."""

BATCH = 16


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of the answers on ``pictures`` test pictures. Shares are 0..1.

    ``before`` and ``after`` are right answers, ``changed`` those of which the label differs, right or wrong;
    ``probability`` is the largest difference of any probability, ``embedding`` the least cosine between both
    models' embeddings (NaN where the model has none).
    """

    pictures: int
    before: float
    after: float
    changed: float
    probability: float
    embedding: float

    @property
    def lost(self) -> float:
        """Share of right answers lost; negative where there are more now."""
        return self.before - self.after


def quantise_model(
    model_dir: Path,
    calibration: Sequence[Cutout],
    out_dir: Path,
    *,
    outermost: bool = True,
    overwrite: bool = False,
) -> ModelCard:
    """Write the model in ``model_dir`` with 8-bit convolutions to ``out_dir``.

    Static quantisation (Jacob et al. 2018, sections 2 and 3) with a scale for each channel of the weights, in the
    form of QuantizeLinear and DequantizeLinear nodes. What follows the last convolution stays in floating point,
    and so do trees. Weights use 7 of the 8 bits: without VNNI, sums of two products of 8-bit numbers overflow.

    Args:
        model_dir: Folder with weights and card.
        calibration: Cut-outs (at least 8, of all types) that show what range the activations have.
        out_dir: New folder.
        outermost: Whether the first and the last convolution of the backbone are quantised too.
        overwrite: Whether a model that is there may be replaced.

    Returns:
        The card of the new model: version with ``-int8``, without figures, for they were another model's.

    Raises:
        ModelError: There is no such model, or there are too few cut-outs.
        ConfigurationError: The folder is there already, or can't be written.
    """
    with new_model(out_dir, overwrite) as folder:
        return _quantise(model_dir, calibration, folder, outermost)


def _quantise(model_dir: Path, calibration: Sequence[Cutout], out_dir: Path, outermost: bool) -> ModelCard:
    if len(calibration) < 8:
        raise ModelError(
            f"{len(calibration)} cut-outs are too few to quantise a model; give 8 or more, of all types"
        )
    card = read_card(model_dir)
    weights = check_weights(model_dir, card)
    with tempfile.TemporaryDirectory() as work:
        folded, target = Path(work) / "folded.onnx", Path(work) / WEIGHTS_FILE
        (Path(work) / "float.onnx").write_bytes(_prepared(weights))
        quant_pre_process(Path(work) / "float.onnx", folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            target,
            _Reader(open_engine(weights, str(model_dir)), card, calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=_quantised_nodes(onnx.load(folded), outermost),
        )
        content = target.read_bytes()
    return _write(model_dir, out_dir, content)


def quantise_within(
    model_dir: Path,
    calibration: Sequence[Cutout],
    test: Sequence[tuple[Cutout, str]],
    out_dir: Path,
    max_loss: float = MAX_LOSS,
    overwrite: bool = False,
) -> Loss:
    """Quantise the whole backbone, or all but its first and last layer where that loses more than ``max_loss``.

    The loss goes into the new card's ``metrics``, under ``quantisation``.

    Raises:
        ModelError: As `quantise_model`; or more is lost either way.
        ConfigurationError: As `quantise_model`.
    """
    with new_model(out_dir, overwrite) as folder:
        for outermost in (True, False):
            _quantise(model_dir, calibration, folder, outermost)
            loss = quantisation_loss(model_dir, folder, test)
            if loss.lost <= max_loss:
                _note(folder, asdict(loss) | {"lost": loss.lost, "outermost_layers": outermost})
                return loss
        raise ModelError(
            f"{model_dir}: 8 bits lose {loss.lost:.1%} of the answers, more than {max_loss:.1%}; "
            "keep the model as it is, or calibrate with more pictures"
        )


def quantisation_loss(model_dir: Path, quantised_dir: Path, test: Sequence[tuple[Cutout, str]]) -> Loss:
    """How the answers of two models differ on test cut-outs and their labels.

    Raises:
        ModelError: A model can't be read, or there are no test pictures.
    """
    cutouts = [cutout for cutout, _ in test]
    labels = [label for _, label in test]
    card = read_card(model_dir)
    return loss_between(card, answers(model_dir, cutouts), answers(quantised_dir, cutouts), labels)


def answers(
    model_dir: Path, cutouts: Sequence[Cutout], backend: Backend = "onnxruntime", precision: Precision = "f32"
) -> dict[str, np.ndarray]:
    """Outputs of a model by name, a row for each cut-out.

    Raises:
        ModelError: The model can't be read, or there are no cut-outs.
        ConfigurationError: There is no such backend or precision here.
    """
    if not cutouts:
        raise ModelError(f"{model_dir}: no pictures to judge it by; give some with their labels")
    card = read_card(model_dir)
    engine = open_engine(check_weights(model_dir, card), str(model_dir / WEIGHTS_FILE), backend, precision)
    parts = [engine.run(**batch) for batch in _batches(engine, card, cutouts, BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in engine.outputs}


def loss_between(
    card: ModelCard, before: dict[str, np.ndarray], after: dict[str, np.ndarray], truth: Sequence[str]
) -> Loss:
    """What is lost between two sets of answers (see `answers`) to the same pictures with these labels."""
    labels, right = np.array(card.labels), np.array(truth)
    said_before, said_after = (labels[answer["probabilities"].argmax(axis=1)] for answer in (before, after))
    cosine = float("nan")
    if "embedding" in before:
        cosine = float((before["embedding"] * after["embedding"]).sum(axis=1).min())
    return Loss(
        pictures=len(truth),
        before=float((said_before == right).mean()),
        after=float((said_after == right).mean()),
        changed=float((said_before != said_after).mean()),
        probability=float(np.abs(before["probabilities"] - after["probabilities"]).max()),
        embedding=cosine,
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration pictures out, one at a time, as the quantiser asks for them."""

    def __init__(self, engine: Engine, card: ModelCard, cutouts: Sequence[Cutout]) -> None:
        self._batches = _batches(engine, card, cutouts, 1)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next picture's inputs, or None."""
        return next(self._batches, None)


def _batches(
    engine: Engine, card: ModelCard, cutouts: Sequence[Cutout], size: int
) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(cutouts), size):
        some = cutouts[start : start + size]
        batch = {"pixels": np.concatenate([card.preprocessing.normalise(cutout.pixels) for cutout in some])}
        if "colour" in engine.inputs:
            batch["colour"] = np.stack([colour_histogram(cutout) for cutout in some])
        yield batch


def _prepared(weights: bytes) -> bytes:
    """The model with each set of operators named once (joined models repeat ONNX's own), and static padding."""
    model = onnx.load_model_from_string(weights)
    versions: dict[str, int] = {}
    for opset in model.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        versions[domain] = max(opset.version, versions.get(domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    return bytes(with_static_padding(model).SerializeToString())


def _quantised_nodes(model: Any, outermost: bool) -> list[str]:
    """Names of the backbone's convolutions and of the sums between them."""
    maker = {output: node for node in model.graph.node for output in node.output}
    results = {value.name for value in model.graph.output}
    convolutions = [
        node for node in model.graph.node if node.op_type == "Conv" and not results.intersection(node.output)
    ]
    before_last = _ancestors(convolutions[-1:], maker)
    sums = [node for node in model.graph.node if node.op_type == "Add" and node.name in before_last]
    chosen = convolutions if outermost else convolutions[1:-1]
    return [node.name for node in [*chosen, *sums]]


def _ancestors(nodes: Sequence[Any], maker: dict[str, Any]) -> set[str]:
    """Names of all nodes on which these depend."""
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        for name in waiting.pop().input:
            node = maker.get(name)
            if node is not None and node.name not in found:
                found.add(node.name)
                waiting.append(node)
    return found


def _write(model_dir: Path, out_dir: Path, content: bytes) -> ModelCard:
    """The new weights with their card, and the model's further files as they are."""
    card = read_card(model_dir)
    text = card.model_dump(mode="json")
    (out_dir / WEIGHTS_FILE).write_bytes(content)
    for name in card.files:
        shutil.copyfile(check_file(model_dir, card, name), out_dir / name)
    text |= {
        "version": f"{text['version']}-int8",
        "sha256": hashlib.sha256(content).hexdigest(),
        "metrics": {},
    }
    (out_dir / CARD_FILE).write_text(to_json(text, indent=1) + "\n", encoding="utf-8")
    return read_card(out_dir)


def _note(out_dir: Path, figures: dict[str, Any]) -> None:
    path = out_dir / CARD_FILE
    text = read_card(out_dir).model_dump(mode="json")
    text["metrics"] = {"quantisation": {key: _rounded(value) for key, value in figures.items()}}
    path.write_text(to_json(text, indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 5)
    return value
