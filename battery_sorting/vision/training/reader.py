"""Makes the network that reads what is printed on batteries from a published line recogniser.

    python -m battery_sorting.vision.training.reader ch_PP-OCRv4_rec_infer.onnx models/battery_type/1/reader.onnx

The source is the mobile recogniser of PP-OCRv4 (PaddleOCR, Apache License 2.0), as the package
rapidocr-onnxruntime 1.4.4 brings it along. Of its 6,625 characters Latin letters and digits are kept, and its
weights are stored in 8 bits each: 2 MB instead of 11, at the same speed, since they are unpacked as it is loaded.
"""

from __future__ import annotations

import string
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from battery_sorting.core.beside import file_beside
from battery_sorting.core.errors import ModelError

CHARACTERS = string.ascii_letters + string.digits + "+-."
LARGE = 2000
"""Tensors with more numbers are stored in 8 bits each."""


def convert_reader(source: bytes) -> bytes:
    """Content of ``reader.onnx``, of the content of a PP-OCR recogniser in ONNX.

    Raises:
        ModelError: It is none, or knows other characters.
    """
    try:
        model = onnx.load_model_from_string(source)
        known = {entry.key: entry.value for entry in model.metadata_props}["character"].splitlines()
        columns = [0, *(1 + known.index(character) for character in CHARACTERS)]  # 0 is the blank
    except (KeyError, ValueError, onnx.onnx_cpp2py_export.checker.ValidationError) as error:
        raise ModelError(f"the recogniser lacks Latin characters ({error}); take that of PP-OCRv4") from error
    except Exception as error:  # protobuf's own exceptions have no common base
        raise ModelError(f"the recogniser can't be read as ONNX ({error}); take that of PP-OCRv4") from error
    graph = model.graph
    tensors = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    tensors |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in graph.node
        if node.op_type == "Constant"
    }
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    addition, multiplication = nodes[-2], nodes[-3]  # before the softmax
    for name in (multiplication.input[1], addition.input[1]):
        tensors[name] = tensors[name][..., columns]

    unpacking, stored = [], []
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or tensor.size <= LARGE or tensor.ndim < 2:
            stored.append(numpy_helper.from_array(tensor, name))
            continue
        packed, scale = _in_8_bits(tensor)
        stored += [numpy_helper.from_array(packed, f"{name}.q"), numpy_helper.from_array(scale, f"{name}.scale")]
        unpacking += [
            helper.make_node("Cast", [f"{name}.q"], [f"{name}.f"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.f", f"{name}.scale"], [name]),
        ]
    for field in (graph.node, graph.initializer, graph.value_info, model.metadata_props):
        del field[:]
    graph.node.extend([*unpacking, *nodes])
    graph.initializer.extend(stored)
    graph.output[0].type.tensor_type.shape.dim[2].dim_value = len(columns)
    model.metadata_props.add(key="characters", value=CHARACTERS)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _in_8_bits(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 of the same shape and float32 scales, one per output channel."""
    within = tuple(range(1, tensor.ndim)) if tensor.ndim == 4 else (0,)
    scale = np.maximum(np.abs(tensor).max(axis=within, keepdims=True) / 127, 1e-12).astype(np.float32)
    return np.round(tensor / scale).astype(np.int8), scale


if __name__ == "__main__":
    with file_beside(Path(sys.argv[2])) as written:
        written.write_bytes(convert_reader(Path(sys.argv[1]).read_bytes()))
