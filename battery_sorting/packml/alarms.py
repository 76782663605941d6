"""Alarms of a line: what keeps it from running comes and goes, and both are recorded."""

from __future__ import annotations

from battery_sorting.ledger import Record


def follow_fault(faults: dict[str, str], code: str, problem: str) -> None:
    """Keep the fault ``code`` as ``problem`` says; empty: there is none."""
    if problem:
        faults[code] = problem
    else:
        faults.pop(code, None)


class AlarmBook:
    """The alarms that are raised now: code → text."""

    def __init__(self) -> None:
        self._raised: dict[str, str] = {}

    def follow(self, problems: dict[str, str]) -> list[Record]:
        """Records of the alarms that came and those that went since the last call."""
        came = {code: text for code, text in problems.items() if code not in self._raised}
        gone = [code for code in self._raised if code not in problems]
        self._raised = dict(problems)
        raised = [Record("alarm_raised", None, None, {"code": code, "text": text}) for code, text in came.items()]
        return [*raised, *(Record("alarm_cleared", None, None, {"code": code}) for code in gone)]
