"""Writing networks as ONNX files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from battery_sorting.vision.training.padding import with_static_padding

OPSET = 17


def export_onnx(
    module: nn.Module,
    example: Sequence[torch.Tensor],
    path: Path,
    outputs: Sequence[str],
    inputs: Sequence[str] = ("pixels",),
) -> None:
    """Write ``module`` as one ONNX file for batches of any size."""
    with warnings.catch_warnings():
        # torch calls this exporter outdated; unlike the new one it folds batch norm and needs no further packages.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "Converting a tensor to a Python")  # sizes are the same for all pictures
        torch.onnx.export(
            module.eval(),
            tuple(example),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "n"} for name in (*inputs, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    # timm pads as TensorFlow does, at run time, which keeps onnxruntime from joining layers.
    onnx.save(with_static_padding(onnx.load(path)), path)
