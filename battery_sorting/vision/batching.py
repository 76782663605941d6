"""One network for several cameras of a process: what is waiting goes through it together."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from battery_sorting.vision.engine import Engine, Tensors


@dataclass(frozen=True, slots=True)
class _Request:
    pixels: np.ndarray
    colour: np.ndarray | None
    answer: Future[Tensors] = field(default_factory=Future)

    def fits(self, other: _Request) -> bool:
        """Whether both can go through the network as one batch."""
        return _kind(self.pixels) == _kind(other.pixels) and _kind(self.colour) == _kind(other.colour)


class MicroBatcher(Engine):
    """An engine that threads share. Pictures that wait while one is looked at are looked at together.

    It is worth while with OpenVINO (docs/inference.md); with onnxruntime a batch takes as long as its pictures one
    by one, and a batcher merely lets several cameras share one network.

    Args:
        engine: What runs the network. Nobody else may use it meanwhile.
        most: Pictures in a batch.
        max_wait_s: How long the first of a batch waits for more, at most; 0: takes what is there. A belt that
            waits for company decides later, so keep it far below the time to the first ejector.
    """

    def __init__(self, engine: Engine, most: int = 8, max_wait_s: float = 0.0) -> None:
        if most < 1 or max_wait_s < 0:
            raise ValueError(
                f"most: {most}, max_wait_s: {max_wait_s}; give at least one picture and no negative time"
            )
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._engine = engine
        self._most, self._max_wait_s = most, max_wait_s
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="micro-batcher")
        self._thread.start()

    def submit(self, pixels: np.ndarray, colour: np.ndarray | None = None) -> Future[Tensors]:
        """Queue pictures as `Engine.run` takes them; the future holds their outputs, or the engine's `ModelError`.

        Raises:
            RuntimeError: The batcher is closed.
        """
        request = _Request(pixels, colour)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(request)
            self._changed.notify()
        return request.answer

    def run(self, pixels: np.ndarray, colour: np.ndarray | None = None) -> Tensors:
        """As `Engine.run`, from any thread."""
        return self.submit(pixels, colour).result()

    def close(self) -> None:
        """Answer what was submitted, then stop. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> MicroBatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, given: Tensors) -> Tensors:
        return self.run(**given)

    def _work(self) -> None:
        while batch := self._next_batch():
            self._answer(batch)

    def _next_batch(self) -> list[_Request]:
        """The oldest request and those after it that fit; none when closed and all is answered."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            latest = time.monotonic() + self._max_wait_s
            while not self._closed and len(self._fitting()) == len(self._waiting) and self._rows() < self._most:
                left = latest - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            batch = self._fitting()
            for _ in batch:
                self._waiting.popleft()
            return batch

    def _fitting(self) -> list[_Request]:
        """The first request that waits, and as many after it as go into its batch."""
        batch: list[_Request] = []
        rows = 0
        for request in self._waiting:
            rows += len(request.pixels)
            if batch and (rows > self._most or not request.fits(batch[0])):
                break
            batch.append(request)
        return batch

    def _rows(self) -> int:
        return sum(len(request.pixels) for request in self._waiting)

    def _answer(self, batch: list[_Request]) -> None:
        wanted = [request for request in batch if request.answer.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            answers = self._together(wanted)
        except Exception as error:
            if len(wanted) == 1:
                wanted[0].answer.set_exception(error)
                return
            # One of them is at fault: the others get their answers.
            for request in wanted:
                self._alone(request)
            return
        for request, answer in zip(wanted, answers, strict=True):
            request.answer.set_result(answer)

    def _together(self, batch: list[_Request]) -> list[Tensors]:
        colours = [request.colour for request in batch if request.colour is not None]
        found = self._engine.run(
            np.concatenate([request.pixels for request in batch]), np.concatenate(colours) if colours else None
        )
        ends = np.cumsum([len(request.pixels) for request in batch])[:-1]
        parts = {name: np.split(rows, ends) for name, rows in found.items()}
        return [{name: rows[number] for name, rows in parts.items()} for number in range(len(batch))]

    def _alone(self, request: _Request) -> None:
        try:
            request.answer.set_result(self._together([request])[0])
        except Exception as error:
            request.answer.set_exception(error)


def _kind(array: np.ndarray | None) -> tuple[object, ...] | None:
    return None if array is None else (array.dtype, *array.shape[1:])
