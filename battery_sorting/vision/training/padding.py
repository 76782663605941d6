"""Padding that is computed at every run, made part of the convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort


def with_static_padding(model: Any) -> Any:
    """The same ONNX model, faster: convolutions pad by themselves what Pad nodes before them padded.

    Networks from TensorFlow pad by the picture's size, on one side more than on the other. PyTorch exports that as
    a computation, which keeps onnxruntime from fusing layers and costs two changes of memory layout each time. The
    size never changes, so the computation is done here, once.

    Args:
        model: With the picture's size fixed; the batch may be of any size. It is changed in place.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    pads = _values(model, [node.input[1] for node in model.graph.node if node.op_type == "Pad"])
    for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
        pad = makers.get(conv.input[0])
        if pad is not None and pad.op_type == "Pad" and _is_plain(pad, pads[pad.input[1]]):
            _absorb(conv, pad, pads[pad.input[1]])
    _drop_unused(model)
    return model


def _values(model: Any, names: list[str]) -> dict[str, np.ndarray]:
    """What these tensors hold, whatever the picture shows."""
    if not names:
        return {}
    probe = type(model)()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in set(names) - known
    )
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {
        value.name: np.zeros([size if isinstance(size, int) else 1 for size in value.shape], np.float32)
        for value in session.get_inputs()
    }
    wanted = sorted(set(names))
    return dict(zip(wanted, session.run(wanted, given), strict=True))


def _is_plain(pad: Any, amounts: np.ndarray) -> bool:
    """Whether it pads rows and columns with zeros, as a convolution can."""
    mode = next((attribute.s for attribute in pad.attribute if attribute.name == "mode"), b"constant")
    channels = amounts.reshape(2, -1)[:, :2]
    return bool(mode == b"constant" and len(amounts) == 8 and not channels.any() and (amounts >= 0).all())


def _absorb(conv: Any, pad: Any, amounts: np.ndarray) -> None:
    own = next((list(attribute.ints) for attribute in conv.attribute if attribute.name == "pads"), [0, 0, 0, 0])
    both = [int(value) for value in np.array(own) + amounts.reshape(2, 4)[:, 2:].ravel()]
    kept = [attribute for attribute in conv.attribute if attribute.name not in ("pads", "auto_pad")]
    del conv.attribute[:]
    conv.attribute.extend([*kept, onnx.helper.make_attribute("pads", both)])
    conv.input[0] = pad.input[0]


def _drop_unused(model: Any) -> None:
    """Without the nodes and constants that nothing depends on any more."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    constants = [constant for constant in model.graph.initializer if constant.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
