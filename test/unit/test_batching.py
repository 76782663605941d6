"""Several threads, one network."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from battery_sorting.core.errors import ModelError
from battery_sorting.vision.batching import MicroBatcher
from battery_sorting.vision.engine import Engine

WAIT_S = 10.0


class Mean(Engine):
    """Says of each picture its mean; refuses NaN. A closed gate holds it until the test opens it."""

    inputs = ("pixels", "colour")
    outputs = ("mean",)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()

    def _run(self, given):
        self.busy.set()
        assert self.gate.wait(WAIT_S)
        self.batches.append(len(given["pixels"]))
        if np.isnan(given["pixels"]).any():
            raise ValueError("NaN")
        return {"mean": given["pixels"].mean(axis=(1, 2, 3)) + given["colour"][:, 0]}


def picture(value: float, n: int = 1, size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return np.full((n, 3, size, size), value, np.float32), np.zeros((n, 2), np.float32)


@pytest.fixture
def engine():
    return Mean()


def held(engine: Mean, batcher: MicroBatcher, value: float = 0.0):
    """Submits a picture at which the engine stands still."""
    engine.gate.clear()
    future = batcher.submit(*picture(value))
    assert engine.busy.wait(WAIT_S)
    return future


def test_what_waits_goes_together_and_everyone_gets_his_own_answer(engine):
    with MicroBatcher(engine, most=8) as batcher:
        first = held(engine, batcher, 100)
        others = [batcher.submit(*picture(value, n=1 + value % 2)) for value in range(5)]
        engine.gate.set()
        assert first.result(WAIT_S)["mean"] == 100
        for value, future in enumerate(others):
            assert future.result(WAIT_S)["mean"].tolist() == [value] * (1 + value % 2)
    assert engine.batches == [1, 7]


def test_batches_are_no_larger_than_allowed(engine):
    with MicroBatcher(engine, most=4) as batcher:
        held(engine, batcher)
        futures = [batcher.submit(*picture(value, n=n)) for value, n in enumerate((3, 2, 2, 6, 1))]
        engine.gate.set()
        assert [future.result(WAIT_S)["mean"][0] for future in futures] == [0, 1, 2, 3, 4]
    assert engine.batches == [1, 3, 4, 6, 1]


def test_pictures_of_different_size_are_not_mixed(engine):
    with MicroBatcher(engine) as batcher:
        held(engine, batcher)
        futures = [batcher.submit(*picture(value, size=size)) for value, size in enumerate((4, 4, 6, 4))]
        engine.gate.set()
        assert [future.result(WAIT_S)["mean"][0] for future in futures] == [0, 1, 2, 3]
    assert engine.batches == [1, 2, 1, 1]


def test_error_reaches_the_one_at_fault_and_nobody_else(engine):
    with MicroBatcher(engine) as batcher:
        held(engine, batcher)
        good, bad, also_good = (batcher.submit(*picture(value)) for value in (1, np.nan, 2))
        engine.gate.set()
        with pytest.raises(ModelError, match="NaN"):
            bad.result(WAIT_S)
        assert good.result(WAIT_S)["mean"] == 1
        assert also_good.result(WAIT_S)["mean"] == 2
        with pytest.raises(ModelError, match="NaN"):
            batcher.run(*picture(np.nan))
        assert batcher.run(*picture(3))["mean"] == 3, "it goes on after an error"


def test_cancelled_request_is_left_out(engine):
    with MicroBatcher(engine) as batcher:
        held(engine, batcher)
        cancelled, kept = batcher.submit(*picture(1)), batcher.submit(*picture(2))
        assert cancelled.cancel()
        engine.gate.set()
        assert kept.result(WAIT_S)["mean"] == 2
    assert engine.batches == [1, 1]


def test_closing_answers_what_was_submitted_and_takes_nothing_more(engine):
    batcher = MicroBatcher(engine)
    held(engine, batcher)
    waiting = batcher.submit(*picture(5))
    closing = threading.Thread(target=batcher.close)
    closing.start()
    engine.gate.set()
    closing.join(WAIT_S)
    assert waiting.result(WAIT_S)["mean"] == 5
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(*picture(6))
    batcher.close()
    assert "micro-batcher" not in [thread.name for thread in threading.enumerate()]


def test_first_of_a_batch_waits_for_company_only_until_the_batch_is_full(engine):
    with MicroBatcher(engine, most=2, max_wait_s=WAIT_S) as batcher:
        one, two = batcher.submit(*picture(1)), batcher.submit(*picture(2))
        assert [one.result(WAIT_S / 2)["mean"], two.result(WAIT_S / 2)["mean"]] == [1, 2]
        assert engine.batches == [2]
        alone = batcher.submit(*picture(3))
    assert alone.result(0)["mean"] == 3, "closing ends the waiting"


def test_many_threads_use_it_as_if_it_were_theirs(engine):
    with MicroBatcher(engine, most=4, max_wait_s=0.001) as batcher, ThreadPoolExecutor(8) as threads:
        said = list(threads.map(lambda value: float(batcher.run(*picture(value))["mean"][0]), range(200)))
    assert said == list(range(200))
    assert max(engine.batches) <= 4


def test_impossible_settings_are_refused(engine):
    with pytest.raises(ValueError, match="at least one picture"):
        MicroBatcher(engine, most=0)
