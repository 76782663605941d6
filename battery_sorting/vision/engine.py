"""Runs a model's network: onnxruntime everywhere, OpenVINO where it is installed and wanted."""

from __future__ import annotations

import hashlib
import importlib
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
import onnxruntime as ort

from battery_sorting.core.errors import ConfigurationError, ModelError

Backend = Literal["onnxruntime", "openvino"]
Precision = Literal["f32", "bf16"]
Tensors: TypeAlias = "dict[str, np.ndarray]"

LONGEST_RUN_S = 30.0
"""A network that runs longer is ended: many times what a batch takes on a busy machine."""
CLASSICAL = "ai.onnx.ml"
"""Domain of trees and the like, which OpenVINO does not know: that part of a model stays with onnxruntime."""


class Engine(ABC):
    """A network ready to run. Its inputs and outputs go by their names in the model."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, pixels: np.ndarray, colour: np.ndarray | None = None) -> Tensors:
        """Outputs by name for a batch.

        Args:
            pixels: float32 (n, 3, height, width), as `Preprocessing.normalise` makes it.
            colour: float32 (n, k), as `colour_histogram` makes it; models that don't ask for it take no notice.

        Raises:
            ModelError: The model wants an input that is missing, or of another shape, or never ends.
        """
        given: Tensors = {"pixels": pixels} if colour is None else {"pixels": pixels, "colour": colour}
        missing = [name for name in self.inputs if name not in given]
        if missing:
            raise ModelError(f"the network wants the input {', '.join(missing)}, which it was not given")
        try:
            return self._run({name: given[name] for name in self.inputs})
        except ModelError:
            raise
        except Exception as error:  # the run times' own exceptions have no common base
            shapes = ", ".join(f"{name} {given[name].dtype} {given[name].shape}" for name in self.inputs)
            raise ModelError(f"the network refuses {shapes}: {error}") from error

    @abstractmethod
    def _run(self, given: Tensors) -> Tensors: ...


def open_engine(
    weights: bytes, source: str, backend: Backend = "onnxruntime", precision: Precision = "f32", threads: int = 1
) -> Engine:
    """The network in ``weights``, ready to run. With onnxruntime the same weights are loaded once in a process.

    Args:
        weights: Content of an ONNX file.
        source: Its name, for messages.
        backend: What runs it.
        precision: Of the sums; bf16 is for OpenVINO on processors that have it. An int8 model brings its own.
        threads: Processor threads for one run.

    Raises:
        ModelError: The weights can't be read.
        ConfigurationError: The backend is not installed, or has no such precision on this processor.
    """
    if threads < 1:
        raise ConfigurationError("threads", [f"{threads} threads can't run anything; give 1 or more"])
    if precision not in precisions(backend):
        others = ", ".join(precisions(backend))
        raise ConfigurationError(
            "precision", [f"{backend} has no {precision} on this processor; choose one of {others}"]
        )
    try:
        if backend == "onnxruntime":
            return _SESSIONS(weights, threads, lambda: _OnnxRuntime(weights, threads))
        return _with_openvino(weights, precision, threads)
    except ConfigurationError:
        raise
    except Exception as error:  # the run times' own exceptions have no common base
        cause = " ".join(str(error).split())
        raise ModelError(
            f"{source}: can't be read as ONNX by {backend} ({cause}); restore the file or train the model again"
        ) from error


def precisions(backend: Backend) -> tuple[Precision, ...]:
    """What ``backend`` can compute in on this processor.

    Raises:
        ConfigurationError: The backend is unknown or not installed.
    """
    if backend == "onnxruntime":
        return ("f32",)
    if backend != "openvino":
        raise ConfigurationError("backend", [f"{backend!r} is unknown; choose onnxruntime or openvino"])
    able = _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("f32", "bf16") if "BF16" in able else ("f32",)


class _OnnxRuntime(Engine):
    def __init__(self, weights: bytes, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait would else take the processor from the nodes that drive the belt.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def _run(self, given: Tensors) -> Tensors:
        return dict(zip(self.outputs, run_bounded(self._session, given), strict=True))


def run_bounded(session: Any, given: Tensors) -> list[np.ndarray]:
    """Outputs of a session of onnxruntime, in their order.

    Raises:
        ModelError: It has not come to its end within `LONGEST_RUN_S`; a network may hold loops.
    """
    options = ort.RunOptions()
    alarm = threading.Timer(LONGEST_RUN_S, setattr, (options, "terminate", True))
    alarm.daemon = True
    alarm.start()
    try:
        found: list[np.ndarray] = session.run(None, given, options)
        return found
    except Exception as error:
        if options.terminate:
            raise ModelError(f"the network didn't come to an end within {LONGEST_RUN_S:g} s") from error
        raise
    finally:
        alarm.cancel()


Loaded = TypeVar("Loaded")


class LoadedOnce(Generic[Loaded]):
    """Networks that are loaded once in a process for all that use the same weights, as long as anybody does.

    Two threads that start together would else both load one; several may run it at a time.
    """

    def __init__(self) -> None:
        self._loaded: weakref.WeakValueDictionary[tuple[str, int], Loaded] = weakref.WeakValueDictionary()
        self._loading = threading.Lock()

    def __call__(self, weights: bytes, threads: int, load: Callable[[], Loaded]) -> Loaded:
        """What ``load`` made of these weights for so many threads, now or before."""
        key = hashlib.sha256(weights).hexdigest(), threads
        with self._loading:
            found = self._loaded.get(key)
            if found is None:
                found = self._loaded[key] = load()
            return found


_SESSIONS: LoadedOnce[_OnnxRuntime] = LoadedOnce()


class _OpenVino(Engine):
    def __init__(self, weights: bytes, precision: Precision, threads: int) -> None:
        core = _openvino().Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Several processes share the machine; pinned to the same core they would wait for each other.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(core.read_model(weights), "CPU", settings)
        self._request = compiled.create_infer_request()
        self.inputs = tuple(port.get_any_name() for port in compiled.inputs)
        self.outputs = tuple(port.get_any_name() for port in compiled.outputs)

    def _run(self, given: Tensors) -> Tensors:
        results = self._request.infer(given)
        # The request's own memory is overwritten by the next run.
        return {name: np.array(value) for name, value in zip(self.outputs, results.values(), strict=True)}


class _Chain(Engine):
    """Two parts of one model: the second takes what the first one says and the rest of the inputs."""

    def __init__(self, first: Engine, second: Engine, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        self._first, self._second = first, second
        self.inputs, self.outputs = inputs, outputs

    def _run(self, given: Tensors) -> Tensors:
        known = given | self._first._run({name: given[name] for name in self._first.inputs})
        known |= self._second._run({name: known[name] for name in self._second.inputs})
        return {name: known[name] for name in self.outputs}


def _with_openvino(weights: bytes, precision: Precision, threads: int) -> Engine:
    if CLASSICAL.encode() not in weights:
        return _OpenVino(weights, precision, threads)
    whole = _optional("onnx").load_model_from_string(weights)
    if all(node.domain != CLASSICAL for node in whole.graph.node):
        return _OpenVino(weights, precision, threads)
    network, rest = _split(whole)
    return _Chain(
        _OpenVino(network.SerializeToString(), precision, threads),
        _OnnxRuntime(rest.SerializeToString(), threads),
        inputs=tuple(value.name for value in whole.graph.input),
        outputs=tuple(value.name for value in whole.graph.output),
    )


def _split(model: Any) -> tuple[Any, Any]:
    """The model without its classical operators and what depends on them, and that rest."""
    network: list[Any] = []
    rest: list[Any] = []
    behind: set[str] = set()
    for node in model.graph.node:  # in an order in which they can be run
        if node.domain == CLASSICAL or behind.intersection(node.input):
            behind.update(node.output)
            rest.append(node)
        else:
            network.append(node)
    wanted = {name for node in rest for name in node.input} | {value.name for value in model.graph.output}
    said = {name for node in network for name in node.output}
    outputs = [value.name for value in model.graph.output if value.name in behind]
    return _part(model, network, sorted(said & wanted)), _part(model, rest, outputs)


def _part(model: Any, nodes: list[Any], outputs: list[str]) -> Any:
    """A model of these nodes; inputs are whatever they use and neither make nor hold as constants."""
    used = {name for node in nodes for name in node.input if name}
    constants = [constant for constant in model.graph.initializer if constant.name in used]
    own = {name for node in nodes for name in node.output} | {constant.name for constant in constants}
    known = {value.name: value for value in model.graph.input}
    part = type(model)(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = model.graph.name
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(constants)
    part.graph.input.extend(known.get(name) or _float_tensor(name) for name in sorted(used - own))
    part.graph.output.extend(_float_tensor(name) for name in outputs)
    return part


def _float_tensor(name: str) -> Any:
    onnx = _optional("onnx")
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


def _openvino() -> Any:
    return _optional("openvino")


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = "pip install -r requirements/openvino.txt, or choose onnxruntime"
        raise ConfigurationError("backend", [f"openvino needs the package {module} ({error}); {remedy}"]) from error
