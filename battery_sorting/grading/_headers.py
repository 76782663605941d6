"""What the headers of people's tables mean, in any script: names of the quantities, their units, rows of totals."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

UNITS: dict[str, dict[str, float]] = {
    "capacity": {"ah": 1.0, "mah": 1e-3},
    "resistance": {"mohm": 1.0, "ohm": 1e3, "uohm": 1e-3},
    "ocv": {"v": 1.0, "mv": 1e-3},
}
"""Units that columns may have, as factors to those of the table: Ah, mΩ, V."""

_ALIASES = {
    "ah": "ah a_h amp_hours ampere_hours ач а_ч 安时 安培小时",
    "mah": "mah ma_h milliamp_hours milliampere_hours мач ма_ч 毫安时 毫安小时",
    "mohm": "mohm m_ohm mohms milliohm milliohms милли_ом мом 毫欧 毫欧姆",
    "ohm": "ohm ohms ом 欧 欧姆",
    "uohm": "uohm u_ohm uohms microohm microohms мком 微欧 微欧姆",
    "v": "v volt volts в вольт 伏 伏特",
    "mv": "mv m_v millivolt millivolts мв 毫伏",
}
UNIT_OF = {alias: unit for unit, aliases in _ALIASES.items() for alias in aliases.split()}
"""A unit as people write it, plain → its name in `UNITS`."""
_LONGEST_FIRST = sorted(UNIT_OF, key=len, reverse=True)

NAMES: dict[str, tuple[str, ...]] = {
    "id": (
        *("id", "cell_id", "battery_id", "cell", "serial", "serial_number"),
        *(
            "cell_no",
            "cell_number",
            "cell_name",
            "battery_no",
            "battery_number",
            "sn",
            "s_n",
            "barcode",
            "bar_code",
        ),
        *("zellnummer", "zellennummer", "zellnr", "zelle", "seriennummer", "identifiant", "numéro_de_série"),
        *(
            "电池编号",
            "电芯编号",
            "电池id",
            "编号",
            "編號",
            "条码",
            "条形码",
            "电池条码",
            "电芯条码",
            "电池号",
            "序列号",
        ),
        *(
            "セル番号",
            "電池番号",
            "番号",
            "셀번호",
            "번호",
            "номер_ячейки",
            "номер_элемента",
            "номер",
            "серийный_номер",
        ),
        *("no", "nr", "number", "序号", "序號"),
    ),
    "capacity": (
        *("capacity", "discharge_capacity", "cap"),
        *(
            "measured_capacity",
            "actual_capacity",
            "tested_capacity",
            "capacity_measured",
            "kapazität",
            "kapazitaet",
        ),
        *("entladekapazität", "capacité", "capacite", "capacidad", "capacità", "ёмкость", "емкость"),
        *("放电容量", "放電容量", "实测容量", "实际容量", "电池容量", "容量", "방전용량", "용량"),
    ),
    "resistance": (
        *("resistance", "internal_resistance", "impedance", "dcir", "acir", "ir"),
        *("ac_ir", "dc_ir", "acr", "dcr", "ac_resistance", "dc_resistance", "internal_r", "ri", "r_i", "esr"),
        *(
            "innenwiderstand",
            "widerstand",
            "résistance",
            "résistance_interne",
            "resistencia",
            "resistencia_interna",
        ),
        *(
            "внутреннее_сопротивление",
            "сопротивление",
            "交流内阻",
            "直流内阻",
            "内阻",
            "內阻",
            "内部抵抗",
            "내부저항",
        ),
    ),
    "ocv": (
        *("ocv", "open_circuit_voltage", "voltage"),
        *(
            "leerlaufspannung",
            "ruhespannung",
            "spannung",
            "tension_à_vide",
            "tension",
            "voltaje",
            "нрц",
            "напряжение",
        ),
        *("开路电压", "開路電壓", "開回路電圧", "电压", "電壓", "電圧", "개방전압", "전압"),
    ),
}
"""Plain names of each quantity, those that count before others first."""
FOREIGN = frozenset(
    word for word in (*UNIT_OF, *(name for names in NAMES.values() for name in names)) if not word.isascii()
)
"""Words by which an encoding is known."""
_UNCERTAINTY = {"uncertainty", "unc", "std", "sd", "sigma", "u"}
_NO_UNIT = {"", "unit", "units", "einheit", "einheiten", "单位", "單位", "ед", "ед_изм", "text", "none", "n_a"}

_TOTALS_WORDS = (
    "average averages avg mean median std stdev stddev stdevp deviation sd sigma var variance min"
    " minimum max maximum total totals sum subtotal count range spread cv rsd σ ø μ mittelwert mittel"
    " durchschnitt standardabweichung stabw summe gesamt anzahl spannweite moyenne médiane somme"
    " écart_type media promedio suma desviación среднее сумма итого всего минимум максимум медиана"
    " 平均 平均值 均值 标准差 標準差 标准偏差 最大 最大值 最小 最小值 合计 合計 总计 總計 总和 极差"
    " 中位数 方差 小计 평균 합계 표준편차 최대 최소"
)
_TOTALS = frozenset(_TOTALS_WORDS.split())
_BESIDE_TOTALS_WORDS = (
    "value values of all the cell cells std standard dev p s n grand overall arithmetic number"
    " capacity mah ah wert werte aller zellen des cellules значение отклонение стандартное"
)
_BESIDE_TOTALS = frozenset(_BESIDE_TOTALS_WORDS.split())


def plain(title: Any) -> str:
    """``Capacity (mAh)`` as ``capacity_mah``, ``容量（mAh）`` as ``容量_mah``: letters of all scripts stay."""
    text = unicodedata.normalize("NFKC", "" if title is None else str(title)).casefold()
    for sign, word in (("ω", "ohm"), ("μ", "u")):
        text = text.replace(sign, word)
    text = re.sub(r"(?<=[\u3040-\u9fff\uac00-\ud7af])(?=[a-z0-9])", "_", text)
    return re.sub(r"[\W_]+", "_", text).strip("_")


def same(title: Any) -> str:
    """A title as it is compared with the name that a specification gives: as it is, but for case and width."""
    return " ".join(unicodedata.normalize("NFKC", "" if title is None else str(title)).casefold().split())


def unit_at_end(key: str, title: str) -> str | None:
    """Unit of ``key`` with which a plain title ends, or which it is."""
    for alias in _LONGEST_FIRST:
        if UNIT_OF[alias] in UNITS.get(key, {}) and (title == alias or title.endswith(f"_{alias}")):
            return UNIT_OF[alias]
    return None


def meaning(title: str) -> tuple[str, str | None]:
    """Quantity and unit that a plain title tells: ``("capacity_uncertainty", "mah")``; empty if it tells none."""
    if title in NAMES["id"]:
        return "id", None
    for indicator in UNITS:
        if title in NAMES[indicator]:
            return indicator, None
        for alias in _LONGEST_FIRST:
            stem = title.removesuffix(f"_{alias}")
            if stem != title and UNIT_OF[alias] in UNITS[indicator] and stem in NAMES[indicator]:
                return indicator, UNIT_OF[alias]
    words = title.split("_")
    marks = [word for word in words if word in _UNCERTAINTY]
    if len(marks) == 1:  # wherever it stands: capacity_uncertainty_ah, u_capacity_ah, capacity_ah_std
        quantity, unit = meaning("_".join(word for word in words if word != marks[0]))
        return (f"{quantity}_uncertainty", unit) if quantity in UNITS else ("", None)
    return "", None


def is_no_unit(value: Any) -> bool:
    """Whether a value of a row of units stands for *no unit*."""
    return plain(value) in _NO_UNIT


def names_a_total(value: Any) -> bool:
    """Whether the id of a row is that of no cell but of an average or a sum: ``Std. dev.``, ``Total: 12``."""
    if not isinstance(value, str) or len(value) > 60:
        return False
    text = re.sub(r"\(.*?\)|[:=].*$", " ", unicodedata.normalize("NFKC", value).replace("\uff1a", ":"))
    words = plain(text).replace("écart_type", "écarttype").split("_")
    return any(word in _TOTALS or word == "écarttype" for word in words) and all(
        word in _TOTALS or word in _BESIDE_TOTALS or word == "écarttype" for word in words
    )
