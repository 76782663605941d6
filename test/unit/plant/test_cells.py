"""The physics of the plant's cells: balances of charge and energy, relaxation, temperature."""

from __future__ import annotations

import numpy as np
import pytest

from battery_sorting.plant.cells import CHEMISTRIES, Cells, CellSettings

ALL = np.arange(3)


def cells(count: int = 3, seed: int = 5, **settings) -> Cells:
    return Cells(count, CellSettings(**settings), seed)


def full(value: float, count: int = 3) -> np.ndarray:
    return np.full(count, float(value))


def run(bank: Cells, amps: float, seconds: float, steps: int = 1) -> float:
    """Lets a current flow; returns the energy in Wh that went into the first cell."""
    energy_ws = 0.0
    for _ in range(steps):
        before = bank.voltage(ALL, full(amps))[0]
        bank.advance(ALL, full(amps), full(seconds / steps))
        energy_ws += amps * (before + bank.voltage(ALL, full(amps))[0]) / 2 * seconds / steps
    return energy_ws / 3600.0


@pytest.mark.parametrize("steps", [1, 7, 400])
def test_charge_is_kept_whatever_the_length_of_the_steps(steps):
    bank = cells()
    before = bank.soc.copy()
    run(bank, 5.0, 1800.0, steps)
    assert (bank.soc - before) * bank.capacity_ah == pytest.approx(2.5)


def test_energy_that_does_not_come_back_has_become_heat():
    bank = cells(cooling_w_per_k_ah=1e-9)
    before_c, soc = bank.temperature_c[0], bank.soc[0]
    into_wh = run(bank, 10.0, 1200.0, 1200) + run(bank, -10.0, 1200.0, 1200)
    run(bank, 0.0, 3600.0, 60)  # what the RC pair still holds
    heat_wh = (bank.temperature_c[0] - before_c) * 25.0 * bank.nominal_ah / 3600.0
    assert bank.soc[0] == pytest.approx(soc)
    assert into_wh == pytest.approx(heat_wh, rel=0.02)
    assert heat_wh > 0


def test_voltage_steps_by_r0_at_once_and_then_follows_the_rc_pair():
    bank = cells(r1_over_r0=1.0)
    bank.soc[:] = 0.5
    rest_v = bank.voltage(ALL, full(0.0))
    assert bank.voltage(ALL, full(20.0)) - rest_v == pytest.approx(20.0 * bank.r0(ALL))
    tau_s = bank.tau_s[0]
    bank.advance(ALL, full(20.0), full(tau_s))
    assert bank.v1_v[0] == pytest.approx(20.0 * bank.r1_mohm[0] / 1000 * (1 - np.exp(-1)), rel=0.03)


def test_voltage_relaxes_with_the_time_constant_after_a_current():
    bank = cells()
    run(bank, -20.0, 300.0)
    overvoltage_v, tau_s = bank.v1_v[0], bank.tau_s[0]
    bank.advance(ALL, full(0.0), full(2 * tau_s))
    assert bank.v1_v[0] == pytest.approx(overvoltage_v * np.exp(-2))
    bank.advance(ALL, full(0.0), full(30 * tau_s))
    assert bank.voltage(ALL, full(0.0)) == pytest.approx(bank.ocv(ALL))


def test_one_long_step_and_many_short_ones_end_at_the_same_place():
    one, many = cells(), cells()
    run(one, 4.0, 600.0, 1)
    run(many, 4.0, 600.0, 300)
    assert one.soc == pytest.approx(many.soc)
    assert one.v1_v == pytest.approx(many.v1_v, rel=0.03)  # the resistances follow the temperature
    assert one.temperature_c == pytest.approx(many.temperature_c, abs=0.05)


@pytest.mark.parametrize("soc", [0.96, 0.985, 0.995])
@pytest.mark.parametrize("dt_s", [0.5, 10.0])
def test_current_at_constant_voltage_ends_at_that_voltage(soc, dt_s):
    bank = cells()
    bank.soc[:] = soc
    amps = bank.current_for(ALL, full(3.6), full(dt_s), full(200.0))
    bank.advance(ALL, amps, full(dt_s))
    assert bank.voltage(ALL, amps) == pytest.approx(3.6, abs=0.003)  # warms by 100 A
    assert (amps > 0).all()


def test_current_at_constant_voltage_is_limited():
    bank = cells()
    bank.soc[:] = 0.2
    assert bank.current_for(ALL, full(3.65), full(5.0), full(10.0)).tolist() == [10.0] * 3
    bank.soc[:] = 1.01
    assert bank.current_for(ALL, full(3.65), full(5.0), full(10.0)).tolist() == [0.0] * 3


@pytest.mark.parametrize("name", sorted(CHEMISTRIES))
def test_open_circuit_voltage_rises_with_the_charge(name):
    chemistry = CHEMISTRIES[name]
    assert (np.diff(chemistry.ocv_v) > 0).all()
    assert (np.diff(chemistry.soc) > 0).all()
    assert (chemistry.soc[0], chemistry.soc[-1]) == (0.0, 1.0)
    bank = cells(chemistry=name)
    bank.soc[:] = [-0.02, 0.5, 1.02]
    low, middle, high = bank.ocv(ALL)
    assert low < chemistry.voltage_min_v < middle < chemistry.voltage_max_v < high


def test_cold_cells_have_more_resistance():
    bank = cells()
    bank.temperature_c[:] = [0.0, 25.0, 50.0]
    cold, normal, warm = bank.r0(ALL) / (bank.r0_mohm / 1000.0)
    assert normal == pytest.approx(1.0)
    assert 1.8 < cold < 2.3
    assert 0.4 < warm < 0.6


def test_aged_cells_have_less_capacity_and_more_resistance_with_scatter():
    old, new = cells(200, soh_mean=0.7), cells(200, soh_mean=0.95)
    assert old.capacity_ah.mean() < new.capacity_ah.mean()
    assert old.r0_mohm.mean() > 1.3 * new.r0_mohm.mean()
    assert 0.05 < np.std(np.log(new.r0_mohm)) < 0.2


def test_same_seed_gives_the_same_cells():
    assert cells(seed=1).truth(2) == cells(seed=1).truth(2)
    assert cells(seed=1).truth(2) != cells(seed=2).truth(2)


def test_record_holds_the_true_values_of_every_cell():
    events = []
    bank = cells()
    bank.record(events.append)
    assert [event["cell"] for event in events] == [0, 1, 2]
    assert events[1]["capacity_ah"] == pytest.approx(bank.capacity_ah[1], abs=1e-6)
    assert events[1]["resistance_mohm"] == pytest.approx(bank.r0(ALL)[1] * 1000, abs=1e-6)
    assert events[1]["event"] == "cell"
