"""Reasons why a battery went where it went: each stands in the docs, and is told as plain text."""
# issue 16, 5

from __future__ import annotations

import json

import pytest
from support.doc_tables import assert_stands_in, markdown_table

from battery_sorting.core.types import Reason


def test_a_reason_goes_on_record_as_plain_text():
    assert type(str(Reason.LATE)) is str
    assert json.dumps([Reason.LATE, str(Reason.MISSED)]) == '["late", "missed"]'


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_on_record_is_read_back(reason):
    assert Reason.of(str(reason)) is reason


@pytest.mark.parametrize("code", [None, "", "a_reason_of_a_later_version"])
def test_what_is_no_reason_is_none(code):
    assert Reason.of(code) is None


def test_the_docs_list_every_reason():
    rows = [[f"`{reason}`", reason.meaning, "yes" if reason.has_type else "no"] for reason in Reason]
    assert_stands_in("ledger.md", markdown_table(["reason", "what it says of the battery", "has a type"], rows))
