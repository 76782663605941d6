"""A belt, a PLC, a camera and a host with all that goes wrong between them, for the matcher of frames.

`run` lets batteries pass as fast as the machine can and judges every pair by the truth. What the model takes over
from the node and the driver (which frames are refused as stale, when the clocks are compared) stands in `_Host`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from battery_sorting.belt.frames import CapturedFrame, Expected, FrameMatcher

MAX_AGE_S = 1.0
READOUT_S = 0.012
EXPOSURE_S = 0.0004
RECONNECT_S = 0.003
PAUSE_S = 0.5
"""Between two comparisons of the clocks at the least."""
IDLE_S = 10.0
OUTDATED_S = 300.0
"""While nothing comes for so long, the clocks are compared that often."""
DOWN_S = 1.0
"""How long a camera or a PLC that restarts is away."""
SETTLED_S = 30.0
"""A fault is over after that at the latest: what is lost later is lost without one."""


@dataclass(frozen=True)
class Setting:
    """What happens. Rates of faults are per battery."""

    batteries: int = 1000
    seed: int = 0
    rate: float = 5.0
    jitter: float = 0.25
    counts: bool = True
    """Whether the camera counts its triggers; if not, whoever receives its frames counts those."""
    drift: float = 0.0
    latency_s: float = 0.01
    """On top of the readout: the median of the transport."""
    steps: float = 0.0
    lost_frames: float = 0.0
    plc_misses: float = 0.0
    camera_misses: float = 0.0
    camera_restarts: float = 0.0
    cuts: float = 0.0
    plc_restarts: float = 0.0
    stalls: float = 0.0
    stops: float = 0.0
    compares_while_idle: bool = True


@dataclass
class Result:
    """What came of it.

    ``lost``: batteries that got no picture without a fault in the last 30 s before them; ``lost_at_start``: such as
    passed before the first pair, while the matcher learns how slow the camera is.
    """

    batteries: int = 0
    right: int = 0
    wrong: int = 0
    lost: int = 0
    lost_at_start: int = 0
    lost_after_faults: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    comparisons: int = 0
    back_after_s: list[float] = field(default_factory=list)
    """For each step of the clock the time until right pairs were back."""

    def __iadd__(self, other: Result) -> Result:
        for name in ("batteries", "right", "wrong", "lost", "lost_at_start", "lost_after_faults", "comparisons"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, number in other.faults.items():
            self.faults[kind] = self.faults.get(kind, 0) + number
        self.back_after_s += other.back_after_s
        return self


class _Camera:
    """Counts triggers, and has a clock that drifts and is set."""

    def __init__(self, setting: Setting, dice: random.Random) -> None:
        self.drift = setting.drift
        self.ahead_s = dice.uniform(-100, 100)
        self.triggers = dice.randrange(1000)

    def clock(self, now: float) -> float:
        return now * (1 + self.drift) + self.ahead_s


class _Host:
    """Driver and node: turns the camera's time into the host's, refuses stale frames, compares clocks."""

    def __init__(self, camera: _Camera, dice: random.Random) -> None:
        self.matcher = FrameMatcher()
        self._camera, self._dice = camera, dice
        self.comparisons = 0
        self.compared_at = -1e9
        self._stale_since: float | None = None
        self._last_exposure = -1e18
        self.received = 0
        self.offset_s = 0.0
        self.compare(0.0)

    def compare(self, now: float) -> None:
        self.comparisons += 1
        self.compared_at = now
        self.offset_s = now - self._camera.clock(now) + self._dice.uniform(-1e-3, 1e-3)
        self._stale_since, self._last_exposure = None, -1e18
        self.matcher.compared(now)

    def refuses(self, exposure: float, now: float) -> tuple[bool, bool]:
        """Whether the driver refuses a frame, and whether it closes the connection."""
        age_s = now - exposure - self.offset_s
        previous, self._last_exposure = self._last_exposure, exposure
        if exposure < previous or age_s < -MAX_AGE_S:
            return True, True
        if age_s > MAX_AGE_S:
            self._stale_since = self._stale_since if self._stale_since is not None else now
            return True, now - self._stale_since > MAX_AGE_S
        self._stale_since = None
        return False, False


def run(setting: Setting) -> Result:
    """Lets ``setting.batteries`` batteries pass."""
    return _Run(setting).result


class _Run:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.dice = random.Random(f"{setting}")
        self.camera = _Camera(setting, self.dice)
        self.host = _Host(self.camera, self.dice)
        self.result = Result()
        self.events: list[tuple[float, int, str, Any]] = []
        self.order = itertools.count()
        self.edges, self.boot = 0, 0
        self.begun = False
        self.camera_away_until = self.plc_away_until = -1.0
        self.lost_before = -1.0  # frames that left before that time are lost
        self.stalled: dict[str, tuple[float, float]] = {"frame": (0.0, 0.0), "detect": (0.0, 0.0)}
        self.last_arrival = {"frame": 0.0, "detect": 0.0}
        self.fault_at = -1e9
        self.step_at: float | None = None
        self.names: dict[str, bool] = {}  # battery → whether it has a right pair
        self.seen: deque[tuple[str, float, bool]] = deque()
        self._let_pass()

    def _push(self, at: float, kind: str, what: Any) -> None:
        heapq.heappush(self.events, (at, next(self.order), kind, what))

    def _let_pass(self) -> None:
        now, pitch_s = 1.0, 1 / self.setting.rate
        for index in range(self.setting.batteries):
            now += pitch_s * (1 + self.dice.uniform(-self.setting.jitter, self.setting.jitter))
            if self._happens("stops"):
                begin = now
                now += self.dice.choice([10.0, 300.0, 3600.0])
                self._compare_while_idle(begin + IDLE_S, now)
            self._work_until(now)
            self._disturb(now, pitch_s)
            self._pass(f"{self.boot}-{index}", now)
            self._judge(now)
        self._work_until(now + 5)
        self._judge(now + 1e9)
        self.result.comparisons = self.host.comparisons

    def _compare_while_idle(self, begin: float, end: float) -> None:
        at = max(begin, self.host.compared_at + OUTDATED_S)
        while self.setting.compares_while_idle and at < end - IDLE_S:
            self._work_until(at)
            self._reconnect(at)
            at += OUTDATED_S

    # ---- what goes wrong ----

    def _happens(self, fault: str) -> bool:
        if self.dice.random() >= getattr(self.setting, fault):
            return False
        self.result.faults[fault] = self.result.faults.get(fault, 0) + 1
        return True

    def _disturb(self, now: float, pitch_s: float) -> None:
        dice = self.dice
        if self._happens("steps"):
            multiple = dice.choice([1, 1, 1, 2, 3]) * pitch_s + dice.uniform(-0.02, 0.02)
            size = dice.choice([multiple, multiple, dice.uniform(0.02, 1), dice.uniform(0, 0.05), 37.0, 3600.0])
            self.camera.ahead_s += dice.choice([-1, 1]) * size
            self.fault_at = self.step_at = now - dice.random() * 1e-3
        if self._happens("camera_restarts"):
            self.camera.triggers = 0
            self.camera.ahead_s = dice.uniform(-100, 100)
            self._cut(now)
        if self._happens("cuts"):
            self._cut(now)
        if self._happens("plc_restarts"):
            self.edges, self.boot = 0, self.boot + 1
            self.plc_away_until = self.fault_at = now + DOWN_S
        if self._happens("stalls"):
            end = now + dice.choice([0.05, 0.2, 0.2, 0.5]) * dice.uniform(0.5, 1.5)
            for what in dice.choice([("frame",), ("detect",), ("frame", "detect")]):
                self.stalled[what] = (now - dice.random() * 0.05, end)
            self.fault_at = end

    def _cut(self, now: float) -> None:
        self.camera_away_until = self.fault_at = now + DOWN_S
        self.lost_before = now + DOWN_S
        self._push(now + DOWN_S, "compare", None)

    # ---- a battery ----

    def _pass(self, name: str, at: float) -> None:
        self.result.batteries += 1
        self.names[name] = False
        camera_sees, plc_sees = not self._happens("camera_misses"), not self._happens("plc_misses")
        excused = not (camera_sees and plc_sees) or at < self.plc_away_until or at < self.camera_away_until
        if plc_sees and at >= self.plc_away_until:
            self.edges += 1
            seen_at = at + self.dice.uniform(-1.5e-3, 1.5e-3)
            battery = Expected(name, seen_at, self.edges, str(self.boot))
            delay_s = self.dice.uniform(0.001, 0.011) + self.dice.expovariate(1 / 0.003)
            self._push(self._arrival("detect", at + delay_s), "detect", battery)
        if camera_sees and at >= self.camera_away_until:
            self.camera.triggers += 1
            if self._happens("lost_frames"):
                excused = True
            else:
                left = at + EXPOSURE_S + READOUT_S
                delay_s = self.setting.latency_s * self.dice.lognormvariate(0, 0.25)
                exposure = self.camera.clock(at + EXPOSURE_S)
                frame = (name, left, exposure, self.camera.triggers)
                self._push(self._arrival("frame", left + delay_s), "frame", frame)
        if excused:
            self.fault_at = max(self.fault_at, at)
        self.seen.append((name, at, excused))

    def _arrival(self, what: str, at: float) -> float:
        begin, end = self.stalled[what]
        if begin <= at < end:
            at = end
        at = max(at, self.last_arrival[what] + 1e-4)  # nothing overtakes
        self.last_arrival[what] = at
        return at

    # ---- the host ----

    def _work_until(self, until: float) -> None:
        matcher = self.host.matcher
        while self.events and self.events[0][0] <= until:
            now, _, kind, what = heapq.heappop(self.events)
            matcher.expire(now)
            if kind == "compare":
                if now >= self.camera_away_until:
                    self.lost_before = max(self.lost_before, now)
                    self.host.compare(now)
                continue
            if kind == "detect":
                if now - what.seen_at <= matcher.timeout_s:
                    self._note(matcher.expect(what))
                for after_s in (0.2, 0.4, 0.6):  # the node looks that often by itself
                    self._push(now + after_s, "look", None)
            elif kind == "frame":
                self._receive(*what, now)
            if matcher.is_doubtful(now) and now - self.host.compared_at > PAUSE_S:
                self._reconnect(now)

    def _receive(self, name: str, left: float, exposure: float, trigger: int, now: float) -> None:
        if left < self.lost_before:
            return
        self.host.received += 1
        refused, closed = self.host.refuses(exposure, now)
        if closed:
            self._reconnect(now)
        if not refused:
            count = trigger if self.setting.counts else self.host.received
            self._note(self.host.matcher.offer(CapturedFrame(exposure + self.host.offset_s, now, count, name)))

    def _reconnect(self, now: float) -> None:
        """Frames that are under way, and those that leave meanwhile, are lost."""
        self.fault_at = max(self.fault_at, now) if now - self.fault_at < SETTLED_S else self.fault_at
        self.host.compared_at = now
        self.lost_before = max(self.lost_before, now + RECONNECT_S)
        self._push(now + RECONNECT_S, "compare", None)

    def _note(self, pairs: list[Any]) -> None:
        for pair in pairs:
            if pair.battery.battery_id != pair.shot.frame:
                self.result.wrong += 1
            else:
                self.result.right += 1
                self.names[pair.battery.battery_id] = True

    # ---- the judge ----

    def _judge(self, now: float) -> None:
        """Looks at what must have been decided by ``now``."""
        while self.seen and self.seen[0][1] < now - 2.0:
            name, at, excused = self.seen.popleft()
            right = self.names.pop(name)
            if right:
                self.begun = True
                if self.step_at is not None and at >= self.step_at:
                    self.result.back_after_s.append(at - self.step_at)
                    self.step_at = None
            elif excused or at - self.fault_at < SETTLED_S:
                self.result.lost_after_faults += 1
            elif self.begun:
                self.result.lost += 1
            else:
                self.result.lost_at_start += 1
