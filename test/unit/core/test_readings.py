"""What instruments print, as numbers: one parser for all of them. # issue 15, A2"""

from __future__ import annotations

import ast
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import battery_sorting
from battery_sorting.core import readings
from battery_sorting.core.errors import ImplausibleReadingError, NotMeasuredError, OverloadError, ReadingError
from battery_sorting.core.readings import AnswerError
from battery_sorting.drivers.tester import bt356x
from battery_sorting.grading import CellTable

PACKAGE = Path(battery_sorting.__file__).parent
QUANTITIES = (
    readings.RESISTANCE,
    readings.CONTACT,
    readings.VOLTAGE,
    readings.CURRENT,
    readings.CHARGE,
    readings.ENERGY,
    readings.TEMPERATURE,
    readings.TIME,
)


# ---- numbers ----


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("+0", 0.0),
        ("-0", 0.0),
        ("2", 2.0),
        ("2.0", 2.0),
        ("2.", 2.0),
        (".5", 0.5),
        ("+2.0E+01", 20.0),
        ("2e1", 20.0),
        ("2E01", 20.0),
        ("+3.70012345E+00", 3.70012345),
        ("-1.5E-3", -0.0015),
        ("  1.5234E-3", 0.0015234),
        ("-   7.51E+0", -7.51),
        ("\t12\r\n", 12.0),
        ("1.5 E+3", 1500.0),
        ("1E-999", 0.0),
        ("00012", 12.0),
    ],
)
def test_every_form_of_a_number_is_read(text, value):
    assert readings.number(text) == value


NO_NUMBERS = [
    "+",
    "-",
    ".",
    "E5",
    "1E",
    "1.2.3",
    "1,5",
    "1_000",
    "0x10",
    "--5",
    "+-5",
    "1e5e5",
    "five",
    "True",
    "None",
    "٣",
    "²",
    "5;6",
    "1..",
    "5.V.",
    "17V",
    "(@1)",
    '"5"',
    "#H10",
    "1.5%",
]


@pytest.mark.parametrize("text", [*NO_NUMBERS, "", " ", "1 2", "\x00", "1\x00", "\x1f5", "5\x1f", "5 .", "9" * 300])
def test_what_is_no_number_is_told(text):
    with pytest.raises(AnswerError):
        readings.number(text)


OVERLOADS = [
    "9.9E37",
    "+9.9E+37",
    "+9.90000000E+37",
    "+9.89999999E+37",
    "INF",
    "+INFinity",
    "1E999",
    "1E+30",
    "OL",
    "+OL",
    "OVLD",
    "ovld",
    "OVER",
    "OVERLOAD",
    "OVERFLOW",
    "OF",
    "+OF",
    "O.L",
    "-OL-",
    "OVRNG",
    "********",
    "+10.0000E+8",
    "+100.000E+8",
    "1000.00E+6",
    "+1.00000E+10",
    "+1.00000E+9",
    "1.0000E+8",
    "9999E+07",
]


@pytest.mark.parametrize("text", OVERLOADS)
def test_marks_of_an_overload_are_no_readings_of_anything(text):
    for quantity in QUANTITIES:
        with pytest.raises(OverloadError, match=f"the {quantity.name} is beyond what can be measured"):
            quantity.read(text)


def test_a_mark_with_a_unit_is_one_as_well():
    with pytest.raises(OverloadError):
        readings.RESISTANCE.read("9.90E+37 OHM")
    with pytest.raises(NotMeasuredError):
        readings.VOLTAGE.read("9.91E+37 mV")


@pytest.mark.parametrize("text", ["-9.9E37", "-9.9E+37", "-INF", "NINF", "-10.0000E+8", "-1E+9", "-OF", "-OVLD"])
def test_a_negative_overload_is_one_as_well(text):
    assert readings.number(text) == -math.inf
    for quantity in QUANTITIES:
        with pytest.raises(OverloadError, match="below"):
            quantity.read(text)


NOT_MEASURED = [
    "9.91E37",
    "+9.91E+37",
    "+9.91000000E+37",
    "+9.90999999E+37",
    "-9.91E+37",
    "NAN",
    "+NaN",
    "-nan",
    "----",
]


@pytest.mark.parametrize("text", NOT_MEASURED)
def test_what_was_not_measured_is_no_reading_of_anything(text):
    assert math.isnan(readings.number(text))
    for quantity in QUANTITIES:
        with pytest.raises(NotMeasuredError, match=f"the {quantity.name} was not measured: .*[a-z]"):
            quantity.read(text)
        assert math.isnan(quantity.read_if_measured(text))


@pytest.mark.parametrize(
    ("quantity", "text", "value"),
    [
        (readings.VOLTAGE, "+3.7001E+00 V", 3.7001),
        (readings.VOLTAGE, "3.7001VDC", 3.7001),
        (readings.VOLTAGE, "3700.1 mV", 3.7001),
        (readings.RESISTANCE, "1.5234E-3", 1.5234),
        (readings.RESISTANCE, "1.5234E-3 OHM", 1.5234),
        (readings.CONTACT, "0", 0.0),
        (readings.TEMPERATURE, "25.1 CEL", 25.1),
        (readings.TEMPERATURE, "-12.5 °C", -12.5),
        (readings.TEMPERATURE, "25.1 DEG C", 25.1),
        (readings.CURRENT, "-9.998E+00 ADC", -9.998),
        (readings.CHARGE, "20120 mAh", 20.12),
        (readings.TIME, "5760 S", 5760.0),
    ],
)
def test_units_of_the_value_are_understood(quantity, text, value):
    assert quantity.read(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("quantity", "text", "complaint"),
    [
        (readings.TEMPERATURE, "3.3 V", "unit 'V', which is not that of the value"),
        (readings.TEMPERATURE, "77 F", "unit 'F'"),
        (readings.VOLTAGE, "25 CEL", "unit 'CEL'"),
        (readings.RESISTANCE, "1.5 MOHM", "may be milliohms or megohms: have the instrument answer without units"),
        (readings.RESISTANCE, "1.5 mOhm", "may be milliohms or megohms"),
    ],
)
def test_other_units_are_refused_and_never_passed_over(quantity, text, complaint):
    with pytest.raises(AnswerError, match=complaint):
        quantity.read(text)


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (readings.RESISTANCE, "0"),
        (readings.RESISTANCE, "-1.5E-3"),
        (readings.RESISTANCE, "5000"),
        (readings.CONTACT, "-0.001"),
        (readings.TEMPERATURE, "-242.0"),
        (readings.TEMPERATURE, "850"),
        (readings.VOLTAGE, "230"),
        (readings.CURRENT, "-1E7"),
        (readings.TIME, "-1"),
    ],
)
def test_a_value_that_can_not_be_true_is_none(quantity, text):
    with pytest.raises(ImplausibleReadingError, match=rf"{quantity.name} of .* can't be true.*: \w"):
        quantity.read(text)


@settings(deadline=None)
@given(
    value=st.floats(-9.99e7, 9.99e7, allow_nan=False),
    form=st.sampled_from(["{:.0f}", "{:+.0f}", "{:.6f}", "{:+.9f}", "{:.8E}", "{:+.3e}", "{:+.15E}", "{!r}"]),
    blanks=st.sampled_from(["", " ", "   ", "\t"]),
)
def test_any_number_of_any_form_is_read_to_its_value(value, form, blanks):
    text = form.format(value)
    sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    assert readings.number(f"{blanks}{sign}{blanks}{digits}{blanks}") == float(text)
    if abs(float(text)) <= 100:
        assert readings.VOLTAGE.read(text) == float(text)


@settings(deadline=None)
@given(text=st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1")))
def test_rubbish_raises_nothing_but_what_is_said_and_is_never_out_of_range(text):
    for quantity in QUANTITIES:
        try:
            value = quantity.read(text)
        except (AnswerError, ReadingError):
            continue
        assert quantity.low <= value <= quantity.high
    for read in (
        readings.number,
        readings.flag,
        lambda part: readings.integer(part, 0, 255),
        lambda part: readings.word(part, {"RUN": 1}),
        lambda part: readings.fields(part, 3),
        bt356x.parse_reading,
    ):
        try:
            read(text)
        except AnswerError:
            continue


@settings(deadline=None)
@given(value=st.floats(allow_nan=True, allow_infinity=True))
def test_only_what_can_be_true_passes_a_check(value):
    for quantity in QUANTITIES:
        try:
            assert quantity.check(value) == value and quantity.low <= value <= quantity.high
        except ReadingError as error:
            assert quantity.name in str(error)
            assert not quantity.low <= value <= quantity.high or abs(value) >= readings.OVERLOAD


# ---- whole numbers, yes and no, words ----


@pytest.mark.parametrize("text", ["17", "+17", "17.0", "+1.7E+01", "#H11", "#h11", "#b10001", "#Q21"])
def test_whole_numbers_are_read_in_every_form(text):
    assert readings.integer(f" {text} ", 0, 255) == 17


NO_REGISTERS = [
    "1.5",
    "256",
    "-1",
    "9.91E37",
    "9.9E37",
    "NAN",
    "INF",
    "#H",
    "#H1G",
    "#X1",
    "#",
    "#B2",
    "1e400",
    "OVLD",
    "seven",
]


@pytest.mark.parametrize("text", [*NO_REGISTERS, "", "#H" + "F" * 5000, "9" * 5000])
def test_what_is_no_whole_number_in_range_is_told(text):
    with pytest.raises(AnswerError):
        readings.integer(text, 0, 255)


REGISTER_FORMS = ["{}", "+{}", "{}.0", "#H{:X}", "#B{:b}", "#Q{:o}", "{:.10E}"]


@settings(deadline=None)
@given(value=st.integers(0, 2**32 - 1), form=st.sampled_from(REGISTER_FORMS))
def test_any_register_in_any_form_is_read_to_its_value(value, form):
    text = form.format(value)
    assert readings.integer(text, 0, 2**32 - 1) == value


@pytest.mark.parametrize("yes", ["1", "+1", "1.0", "+1.0E+00", "ON", "on", " 1 "])
@pytest.mark.parametrize("no", ["0", "+0", "-0", "0.0", "+0.0E+00", "OFF", "off"])
def test_yes_and_no_are_read_in_every_form(yes, no):
    assert (readings.flag(yes), readings.flag(no)) == (True, False)


@pytest.mark.parametrize("text", ["", "2", "-1", "0.5", "YES", "9.91E37", "1,0", "NAN"])
def test_what_is_neither_yes_nor_no_is_told(text):
    with pytest.raises(AnswerError):
        readings.flag(text)


def test_words_may_be_quoted_and_small_and_others_are_told_with_those_that_are_known():
    known = {"RUN": 1, "IDLE": 2}
    assert [readings.word(text, known) for text in ("RUN", "run", '"RUN"', " IDLE ")] == [1, 1, 1, 2]
    with pytest.raises(AnswerError, match="'WALK' is none of RUN, IDLE"):
        readings.word("WALK", known)


def test_another_count_of_values_is_told():
    assert readings.fields(" 1, 2 ,3", 3) == ["1", "2", "3"]
    with pytest.raises(AnswerError, match="1 value, 2 are expected"):
        readings.fields("5", 2)


# ---- the meter's own marks ----


@pytest.mark.parametrize("entry", [*bt356x.RESISTANCE_RANGES, *bt356x.VOLTAGE_RANGES])
def test_marks_of_every_range_of_the_meter_are_told_apart(entry):
    """Manual BT3562A981, 'Measurement Value Formats'."""
    shown, _ = bt356x.parse_reading(f"{entry.format(bt356x.OVER_RANGE)},1")
    assert bt356x.is_over_range(shown) and not bt356x.is_contact_fault(shown)
    shown, _ = bt356x.parse_reading(f"{entry.format(-bt356x.OVER_RANGE)},1")
    assert readings.meaning(shown) == -math.inf, "no larger range shows it"
    assert not bt356x.is_over_range(shown) and not bt356x.is_contact_fault(shown)
    shown, _ = bt356x.parse_reading(f"{entry.format(bt356x.CONTACT_FAULT)},1")
    assert bt356x.is_contact_fault(shown) and not bt356x.is_over_range(shown)


def test_what_the_meter_writes_is_read_to_its_last_digit():
    dice = random.Random(15)
    for entry in bt356x.RESISTANCE_RANGES:
        for _ in range(200):
            ohms = dice.uniform(entry.digit, entry.maximum)
            shown, _ = bt356x.parse_reading(f"{entry.format(ohms)}, 3.30000E+0")
            assert shown == pytest.approx(ohms, abs=0.51 * entry.digit)


# ---- the tables ----


@pytest.mark.parametrize("text", [*OVERLOADS, *NOT_MEASURED, "-9.9E+37", "-1E+9"])
def test_tables_know_the_same_marks(tmp_path, text):
    file = tmp_path / "cells.csv"
    file.write_text(f"id;capacity_ah;resistance_mohm;ocv_v\na;20.1;{text};3.3\nb;20.2;1.5;3.3\n", encoding="utf-8")
    table = CellTable.read(file)
    assert table.valid.tolist() == [False, True]
    assert "resistance" in table.faults[0]


# ---- the tree ----


INSTRUMENT_CODE = [*sorted((PACKAGE / "drivers/tester").glob("*.py")), PACKAGE / "plant/scpi.py"]


@pytest.mark.parametrize("path", INSTRUMENT_CODE, ids=lambda path: path.name)
def test_nothing_else_makes_numbers_of_what_an_instrument_says(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node.func) != "isinstance"]
    found = [node.lineno for node in calls if {"float", "int", "eval"} & {_name(node.func), *map(_name, node.args)}]
    assert found == [], f"{path.name}: use battery_sorting.core.readings"


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""
