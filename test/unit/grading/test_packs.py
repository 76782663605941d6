"""Packs: layouts, the objective and its bound, caps, grades, priorities, leftovers, parallel groups, arrivals."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from battery_sorting.core.errors import ConfigurationError

pytest.importorskip("numba", reason="pack building needs numba (requirements/wheels.txt)")
from battery_sorting.grading.packing import annealing
from battery_sorting.grading.packing.annealing import Search, kd_packs
from battery_sorting.grading.packing.bound import lower_bound
from battery_sorting.grading.packing.incremental import Answer
from battery_sorting.grading.packing.objective import Objective
from battery_sorting.grading.packs import (
    LEFT_OVER,
    IncrementalPackBuilder,
    Layout,
    Left,
    PackBuilder,
    PackPlan,
    PackStatus,
    Tolerances,
)
from battery_sorting.grading.table import CellTable

QUICK = 0.02
"""Effort that is enough for small sets."""
SHARED = next(
    (
        parent / "shared/data/pulsebat"
        for parent in Path(__file__).resolve().parents
        if (parent / "shared/data/pulsebat").is_dir()
    ),
    None,
)


def cells(count: int, seed: int = 0) -> np.ndarray:
    deviations = np.random.default_rng(seed).standard_normal((count, 3))
    return np.array([30.0, 1.5, 3.3]) + deviations * np.array([1.0, 0.1, 0.005])


def built(rows: np.ndarray, layout: str = "4s", **options: object) -> PackPlan:
    given = {name: options.pop(name) for name in ("grades", "priority") if name in options}
    return PackBuilder(layout, effort=QUICK, threads=2, **options).fit(rows, **given).plan_  # type: ignore[arg-type]


# ---- layout and tolerances ----


@pytest.mark.parametrize(
    ("text", "series", "parallel"), [("8s", 8, 1), ("4s4p", 4, 4), ("1p", 1, 1), (" 12S2P ", 12, 2), ("6p", 1, 6)]
)
def test_layouts_are_understood(text: str, series: int, parallel: int) -> None:
    layout = Layout.parse(text)
    assert (layout.series, layout.parallel, layout.size) == (series, parallel, series * parallel)
    assert Layout.parse(str(layout)) == layout


@pytest.mark.parametrize("text", ["", "s", "8", "0s", "8x", "-8s", "8s0p", "100000s", "4s4p4"])
def test_what_is_no_layout_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"8s|1 to 4096"):
        Layout.parse(text)


def test_a_layout_the_wrong_way_round_gets_a_hint() -> None:
    with pytest.raises(ConfigurationError, match="do you mean 4s2p"):
        Layout.parse("2p4s")


def test_tolerances_are_percentages_or_have_units() -> None:
    found = Tolerances.parse(["capacity=2% resistance=0.3mohm", "ocv=10mV"])
    assert found.absolute(np.array([50.0, 1.0, 3.0])) == pytest.approx([1.0, 0.3, 0.01])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("voltage=1%", "ocv"),
        ("ocv=10", "unit"),
        ("ocv=10mA", "mv"),
        ("ocv=0mV", "above 0"),
        ("ocv=1V ocv=2V", "twice"),
    ],
)
def test_wrong_tolerances_say_what_is_right(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Tolerances.parse([text])


# ---- objective and bound ----


def cheapest_by_trying_all(points: np.ndarray, size: int, packs: int) -> float:
    """Least summed cost of ``packs`` disjoint packs."""

    def search(free: tuple[int, ...], wanted: int) -> float:
        if wanted == 0:
            return 0.0
        best = np.inf
        if len(free) > wanted * size:
            best = search(free[1:], wanted)  # the first one stays over
        for mates in itertools.combinations(free[1:], size - 1):
            pack = (free[0], *mates)
            cost = float(np.ptp(points[list(pack)], axis=0).sum())
            rest = tuple(cell for cell in free if cell not in pack)
            if cost < best:
                best = min(best, cost + search(rest, wanted - 1))
        return best

    return search(tuple(range(len(points))), packs)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "size", "packs"), [(9, 3, 3), (9, 4, 2), (8, 3, 2), (10, 5, 2)])
def test_bound_is_below_the_optimum_and_annealing_finds_it(count: int, size: int, packs: int, seed: int) -> None:
    rows = cells(count, seed)
    points = Objective.of(rows).points(rows)
    optimum = cheapest_by_trying_all(points, size, packs)
    bound = lower_bound(points, size, packs)
    assert 0.3 * optimum < bound <= optimum + 1e-12
    if packs == count // size:
        assert built(rows, f"{size}s").j * packs == pytest.approx(optimum, rel=1e-6)


def test_bound_of_neighbours_is_below_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = cells(60)
    points = Objective.of(rows).points(rows)
    exact = lower_bound(points, 4, 15)
    monkeypatch.setattr("battery_sorting.grading.packing.bound.EXACT_CELLS", 0)
    assert 0 < lower_bound(points, 4, 15) < exact


def test_j_is_the_mean_of_weighted_ranges_by_scales() -> None:
    rows = cells(40, 3)
    plan = built(rows)
    scale = 1.4826 * np.median(np.abs(rows - np.median(rows, axis=0)), axis=0)
    expected = [
        (np.ptp(rows[plan.pack == pack], axis=0) / scale * [0.3176, 0.4548, 0.2276]).sum() for pack in range(10)
    ]
    assert plan.j == pytest.approx(np.mean(expected))
    assert plan.j_lower_bound <= plan.j
    assert 0 <= plan.gap < 1


def test_annealing_beats_the_split_that_it_starts_from() -> None:
    rows = cells(400, 1)
    objective = Objective.of(rows)
    start = objective.costs(rows, kd_packs(objective.points(rows), np.arange(400), 8)).mean()
    assert PackBuilder("8s", effort=0.5, bound=False).fit(rows).plan_.j < 0.95 * start


# ---- the same again ----


def test_packs_do_not_depend_on_threads_and_order() -> None:
    rows = cells(120, 2)
    shuffle = np.random.default_rng(0).permutation(120)
    first = PackBuilder("8s", effort=QUICK, threads=1, seed=5).fit(rows)
    again = PackBuilder("8s", effort=QUICK, threads=3, seed=5).fit(rows)
    other = PackBuilder("8s", effort=QUICK, threads=2, seed=5).fit(rows[shuffle])
    assert (first.labels_ == again.labels_).all()
    mates = {frozenset(shuffle[members].tolist()) for members in other.plan_.members}
    assert mates == {frozenset(members.tolist()) for members in first.plan_.members}


def test_blocks_use_every_cell_once_and_beat_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annealing, "GLOBAL_CELLS", 100)
    rows = cells(3003, 4)
    objective = Objective.of(rows)
    plans = [PackBuilder("8s", threads=threads, seed=1, effort=0.5).fit(rows).plan_ for threads in (1, 2)]
    assert (plans[0].pack == plans[1].pack).all()
    assert plans[0].leftover == 3
    assert sorted(np.unique(plans[0].members).tolist()) == sorted(plans[0].members.ravel().tolist())
    start = objective.costs(rows, kd_packs(objective.points(rows), np.arange(3000), 8)).mean()
    assert plans[0].j_lower_bound < plans[0].j < 0.98 * start


def test_blocks_build_more_from_cells_of_packs_beyond_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annealing, "GLOBAL_CELLS", 100)
    rows = cells(2000, 5)
    plan = built(rows, "4s", tolerance=Tolerances.parse(["resistance=3%"]))
    assert (plan.ranges[:, 1] <= 0.03 * np.median(rows[:, 1]) + 1e-9).all()
    assert plan.leftover < 0.1 * len(rows)


# ---- caps, grades, priorities, leftovers ----


def test_no_pack_is_beyond_a_cap_and_leftovers_say_why() -> None:
    rows = cells(60)
    plan = built(rows, "4s", tolerance=Tolerances.parse(["capacity=2%,resistance=8%"]))
    median = np.median(rows, axis=0)
    assert plan.status is PackStatus.BUILT
    assert 5 <= len(plan.members) < 15
    assert (plan.ranges[:, :2] <= median[:2] * [0.02, 0.08] + 1e-9).all()
    left = int(np.flatnonzero(plan.pack == LEFT_OVER)[0])
    assert "tolerances" in plan.reason(left)
    assert plan.counts()["tolerance"] == plan.leftover


def test_a_cap_counts_for_a_feature_without_weight() -> None:
    rows = cells(60)
    plan = built(rows, "4s", weights=(1, 1, 0), tolerance=Tolerances.parse(["ocv=4mV"]))
    assert len(plan.members) > 5
    assert (plan.ranges[:, 2] <= 0.004 + 1e-9).all()


def test_an_impossible_cap_ends_in_a_status() -> None:
    plan = built(cells(20), "4s", tolerance=Tolerances.parse(["capacity=0.000001%"]))
    assert plan.status is PackStatus.NONE_WITHIN_TOLERANCE
    assert plan.leftover == 20
    assert np.isnan(plan.j)


def test_grades_stay_apart_and_rejects_are_not_used() -> None:
    grades = np.array(list("ABCD") * 10)
    plan = built(cells(40), "4s", grades=grades)
    assert all(len(set(grades[members])) == 1 for members in plan.members)
    assert (plan.left[grades == "D"] == Left.REJECTED).all()
    assert {plan.reason(row) for row in np.flatnonzero(plan.left == Left.REMAINDER)} == {
        f"the usable cells of grade {grade} are no multiple of 4" for grade in "ABC"
    }
    across = built(cells(40), "4s", grades=grades, within_grade=False)
    assert across.leftover == 12


def test_a_grade_with_fewer_cells_than_a_pack_says_so() -> None:
    plan = built(cells(9), "4s", grades=np.array(["A"] * 6 + ["B"] * 3))
    assert plan.reason(8) == "there are fewer than 4 usable cells of grade B"


def test_cells_of_high_priority_are_not_left_over() -> None:
    rows = cells(43, 7)
    priority = np.zeros(43)
    outliers = np.argsort(-np.abs(rows - rows.mean(axis=0)).max(axis=1))[:5]
    priority[outliers] = 2
    assert built(rows, "8s").leftover == 3
    assert (built(rows, "8s", priority=priority).pack[outliers] != LEFT_OVER).all()


# ---- parallel groups ----


def test_parallel_groups_share_the_capacity_evenly() -> None:
    rows = cells(48, 3)
    plan = built(rows, "4s4p")
    assert plan.group_ah.shape == (3, 4)
    for pack, members in enumerate(plan.members):
        sums = [rows[(plan.pack == pack) & (plan.group == group), 0].sum() for group in range(4)]
        assert sums == pytest.approx(plan.group_ah[pack])
        assert len(members) == 16
    assert plan.utilisation > 0.998
    unarranged = np.sort(plan.members, axis=1)
    plain = rows[:, 0][unarranged].reshape(3, 4, 4).sum(axis=2)
    assert plan.utilisation > 4 * plain.min(axis=1).sum() / plain.sum()


def test_a_pack_all_in_parallel_uses_all_its_capacity() -> None:
    assert built(cells(12), "4p").utilisation == pytest.approx(1.0)


# ---- edge cases end in a status ----


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        (np.zeros((0, 3)), PackStatus.NO_CELLS),
        (np.full((10, 3), np.nan), PackStatus.NO_USABLE_CELLS),
        (np.full((10, 3), np.inf), PackStatus.NO_USABLE_CELLS),
        (-cells(10), PackStatus.NO_USABLE_CELLS),
        (cells(1), PackStatus.TOO_FEW_CELLS),
        (cells(3), PackStatus.TOO_FEW_CELLS),
        (np.tile(cells(1), (10, 1)), PackStatus.BUILT),
        (cells(4), PackStatus.BUILT),
        (cells(10) * [1, 0, 1], PackStatus.NO_USABLE_CELLS),
        (cells(10) * [1e300, 1, 1], PackStatus.NO_USABLE_CELLS),
        (cells(10) * [1e-300, 1, 1], PackStatus.BUILT),
    ],
)
def test_odd_sets_end_in_a_status(rows: np.ndarray, status: PackStatus) -> None:
    plan = built(rows, "4s")
    assert plan.status is status
    assert plan.leftover == len(rows) - 4 * len(plan.members)
    assert all(plan.reason(row) for row in np.flatnonzero(plan.pack == LEFT_OVER))
    if status is PackStatus.BUILT:
        assert np.isfinite(plan.j)
        assert plan.j_lower_bound <= plan.j + 1e-12


def test_identical_cells_cost_nothing() -> None:
    plan = built(np.tile(cells(1), (17, 1)), "8s")
    assert (plan.j, plan.j_lower_bound, plan.leftover, plan.gap) == (0, 0, 1, 0)


def test_a_faulty_cell_spoils_no_other() -> None:
    rows = cells(13)
    rows[5] = np.nan
    plan = built(rows, "4s")
    assert len(plan.members) == 3
    assert plan.reason(5) == "capacity_ah is not a finite number"
    assert PackBuilder("4s").fit(CellTable.of_arrays(*rows.T)).plan_.leftover == 1


def test_many_identical_cells_have_neighbours_other_than_themselves() -> None:
    near = annealing._neighbours(np.zeros((500, 3)))
    assert (near != np.arange(500)[:, None]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"weights": (0, 0, 0)},
        {"weights": (1, -1, 1)},
        {"grades": ["A"]},
        {"priority": [np.nan] * 9},
        {"layout": "x"},
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        built(cells(9), **options)  # type: ignore[arg-type]


# ---- what has no say, and grades as people write them (issue 15, points 1 and 4) ----


def test_cells_are_packed_by_what_has_a_weight() -> None:
    rows = cells(24)
    whole = built(rows, "4s", weights=(1, 0, 0))
    gaps = rows.copy()
    gaps[:, 1] = np.nan
    gaps[::2, 2], gaps[1, 2] = np.nan, 9.9e37
    table = CellTable.of_arrays(*gaps.T)
    assert not table.valid.any()
    plan = PackBuilder("4s", weights=(1, 0, 0), effort=0.2).fit(table).plan_
    assert plan.leftover == 0
    assert np.isfinite(plan.j) and plan.j == pytest.approx(whole.j, rel=0.05)
    assert np.isfinite(plan.j_lower_bound) and plan.j_lower_bound <= plan.j + 1e-9
    side_by_side = PackBuilder("2s2p", weights=(0, 1, 0), effort=0.2).fit(gaps[:, [1, 0, 2]]).plan_
    assert side_by_side.leftover == 0


def test_a_cap_gives_a_say_and_a_missing_value_then_is_a_fault() -> None:
    rows = cells(8)
    rows[0, 2] = np.nan
    plan = built(rows, "4s", weights=(1, 1, 0), tolerance=Tolerances.parse(["ocv=1V"]))
    assert plan.left[0] == Left.FAULT
    assert built(rows, "4s", weights=(1, 1, 0)).left[0] == Left.NOT


@pytest.mark.parametrize("mark", [9.9e37, 1e10, 9.91e37, 0.0, -1e12])
def test_marks_of_an_overload_are_packed_nowhere(mark: float) -> None:
    rows = cells(9)
    rows[4, 1] = mark
    plan = built(rows, "4s")
    assert plan.left[4] == Left.FAULT
    released = arrived(IncrementalPackBuilder("4s", buffer=9), rows)
    assert [
        aside.cell_id for aside in released.set_aside if "0" in aside.reason or "overload" in aside.reason
    ] or mark < 0
    assert all("c4" not in pack.ids for pack in released.packs)


@pytest.mark.parametrize(
    "grade",
    [
        "d",
        "D",
        " d ",
        "Grade D",
        "grade d",
        "Reject",
        "REJECTED",
        "fail",
        "NG",
        "scrap",
        "不合格",
        "报废",
        "F",
        "e",
    ],
)
def test_rejected_grades_are_known_however_they_are_written(grade: str) -> None:
    plan = (
        PackBuilder("4s", effort=0.1).fit(cells(8), ["a", "A", "a ", "Grade A", grade, grade, grade, grade]).plan_
    )
    assert plan.left.tolist() == [Left.NOT] * 4 + [Left.REJECTED] * 4
    builder = IncrementalPackBuilder("4s")
    assert builder.add("x", 20, 1.5, 3.3, grade).set_aside


def test_cells_without_a_grade_among_graded_ones_are_not_used() -> None:
    plan = PackBuilder("2s", effort=0.1).fit(cells(4), ["A", "A", "", "?"]).plan_
    assert plan.left.tolist() == [Left.NOT] * 2 + [Left.REJECTED] * 2
    assert PackBuilder("2s", effort=0.1, reject=()).fit(cells(4), ["A", "A", "d", "D"]).plan_.leftover == 0


def test_arrivals_are_packed_by_what_has_a_weight() -> None:
    rows = cells(8)
    rows[:, 1:] = np.nan
    released = arrived(IncrementalPackBuilder("4s", buffer=4, weights=(1, 0, 0)), rows)
    assert len(released.packs) == 2


# ---- real cells ----


@pytest.mark.skipif(SHARED is None, reason="needs the PulseBat cells (shared/data/pulsebat)")
def test_packs_of_real_cells_are_as_alike_as_documented() -> None:
    assert SHARED is not None
    import csv

    with (SHARED / "LFP_35Ah.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row["SOC"] == "50"]
    value = {
        name: np.array([float(row[name]) for row in rows]) for name in ("Q", "Qn", "U1", "U9", "U10", "U13", "U14")
    }
    jumps = (value["U10"] - value["U9"] + value["U13"] - value["U14"]) / 2
    lfp = np.column_stack([value["Q"], 1000 * jumps / value["Qn"], value["U1"]])
    plan = PackBuilder("8s").fit(lfp).plan_
    assert (plan.leftover, len(plan.members)) == (0, 7)
    assert plan.j_lower_bound < plan.j <= 1.1705
    assert PackBuilder("4s4p", effort=0.2).fit(lfp).plan_.utilisation >= 0.999


# ---- cells that arrive one by one ----


def arrived(builder: IncrementalPackBuilder, rows: np.ndarray, grade: str = "") -> Answer:
    whole = Answer()
    for number, row in enumerate(rows.tolist()):
        answer = builder.add(f"c{number}", *row, grade=grade)
        whole.packs += answer.packs
        whole.set_aside += answer.set_aside
        assert sum(builder.waiting().values()) < builder.buffer
    answer = builder.flush()
    whole.packs += answer.packs
    whole.set_aside += answer.set_aside
    return whole


SCALE = Tolerances.parse(["capacity=1Ah resistance=0.1mohm ocv=5mV"])


def test_every_arrival_ends_in_one_pack_or_is_set_aside() -> None:
    whole = arrived(IncrementalPackBuilder("4s", buffer=20, scale=SCALE), cells(101, 1))
    names = [name for pack in whole.packs for name in pack.ids] + [cell.cell_id for cell in whole.set_aside]
    assert sorted(names) == sorted(f"c{number}" for number in range(101))
    assert len(whole.packs) == 25
    assert whole.set_aside[0].reason == "fewer than 4 cells are left"


def test_a_good_enough_pack_is_released_at_once_and_a_larger_buffer_makes_better_ones() -> None:
    rows = cells(200, 2)
    eager = IncrementalPackBuilder("4s", buffer=60, good_enough=0.8, scale=SCALE)
    whole = arrived(eager, rows)
    assert all(pack.cost <= 0.8 for pack in whole.packs if pack.good_enough)
    assert any(pack.good_enough for pack in whole.packs)
    costs = [
        np.mean([pack.cost for pack in arrived(IncrementalPackBuilder("4s", size, scale=SCALE), rows).packs])
        for size in (4, 60)
    ]
    assert costs[1] < 0.8 * costs[0]


def test_scales_are_learnt_from_the_first_full_buffer() -> None:
    builder = IncrementalPackBuilder("4s", buffer=16, good_enough=100)
    rows = cells(16)
    before = [builder.add(str(number), *row) for number, row in enumerate(rows[:15].tolist())]
    assert not any(answer.packs for answer in before)
    assert len(builder.add("last", *rows[15].tolist()).packs) == 1


def test_a_full_buffer_without_a_pack_within_the_caps_sets_a_cell_aside() -> None:
    caps = Tolerances.parse(["capacity=0.001Ah"])
    whole = arrived(IncrementalPackBuilder("4s", buffer=8, scale=SCALE, tolerance=caps), cells(20))
    assert not whole.packs
    assert len(whole.set_aside) == 20


def test_arrivals_that_are_faulty_rejected_or_twice_are_set_aside() -> None:
    builder = IncrementalPackBuilder("4s", scale=SCALE)
    assert builder.add("a", 30, float("nan"), 3.3).set_aside[0].reason == "resistance_mohm is not a finite number"
    assert builder.add("b", 30, 1, 3.3, grade="D").set_aside[0].reason == "cells of grade D are not used"
    assert not builder.add("c", 30, 1, 3.3).set_aside
    assert "already waiting" in builder.add("c", 30, 1, 3.3).set_aside[0].reason


def test_arrivals_of_different_grades_do_not_share_a_pack() -> None:
    builder = IncrementalPackBuilder("2s", good_enough=100, scale=SCALE)
    assert not builder.add("a", 30, 1, 3.3, grade="A").packs
    assert not builder.add("b", 30, 1, 3.3, grade="B").packs
    released = builder.add("c", 30, 1, 3.3, grade="A").packs[0]
    assert (set(released.ids), released.grade, released.cost) == ({"a", "c"}, "A", 0)


def test_a_buffer_smaller_than_a_pack_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 8"):
        IncrementalPackBuilder("8s", buffer=7)


def test_search_without_enough_cells_finds_nothing() -> None:
    search = Search(4, np.full(3, np.inf))
    assert search.packs(np.zeros((3, 3)), np.zeros(3)).shape == (0, 4)
