"""Versions of a model: which one is active, going back, what is refused, and how two compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from battery_sorting.core.active_model import (
    activate,
    activations,
    active_version,
    find_model,
    previous_version,
    roll_back,
    versions,
)
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.site import Site

ROOT = Path(__file__).parents[2]
SITE = "sim"


def make_family(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "card.json").write_text("{}")
    return folder


@pytest.fixture
def family(tmp_path):
    return make_family(tmp_path / "models" / "battery_type", "10", "2", "1")


def test_versions_are_ordered_by_number(family):
    (family / "notes").mkdir()
    assert versions(family) == ["1", "2", "10"]


def test_only_version_is_active_without_a_word(tmp_path):
    family = make_family(tmp_path / "one", "3")
    assert active_version(family) == "3"
    assert find_model(str(family)) == family / "3"


def test_of_several_none_is_active_until_one_is_chosen(family):
    assert active_version(family) is None
    with pytest.raises(ModelError, match=r"1, 2, 10 and none is active.*models activate battery_type/10"):
        find_model(str(family))
    activate(family, "2", 0.0)
    assert find_model(str(family)) == family / "2"


def test_rollback_goes_back_step_by_step(family):
    for version in ("1", "2", "2", "10"):
        activate(family, version, 1.8e9)
    assert activations(family) == ["1", "2", "10"]
    assert "2027-01-15T08:00:00+00:00" in (family / "active").read_text()
    assert previous_version(family) == "2"
    assert (roll_back(family), active_version(family)) == ("2", "2")
    assert (roll_back(family), active_version(family)) == ("1", "1")
    with pytest.raises(ModelError, match="no version was active before"):
        roll_back(family)
    assert active_version(family) == "1"


def test_versions_that_are_gone_are_named(family):
    activate(family, "1", 0.0)
    activate(family, "2", 0.0)
    shutil.rmtree(family / "1")
    with pytest.raises(ModelError, match="'1' was active before, but it is gone"):
        roll_back(family)
    shutil.rmtree(family / "2")
    with pytest.raises(ModelError, match="there is no version '2'"):
        active_version(family)
    with pytest.raises(ModelError, match="there is no version '11'"):
        activate(family, "11", 0.0)


def test_file_can_be_written_by_hand(family):
    (family / "active").write_text("\n1\n10   since Monday\n")
    assert active_version(family) == "10"
    (family / "active").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="restore or remove it"):
        active_version(family)


def test_models_are_found_by_folder_family_and_name(family, monkeypatch):
    monkeypatch.chdir(family.parents[1])
    activate(family, "2", 0.0)
    for name in ("models/battery_type/2", "models/battery_type", "battery_type/2", "battery_type", str(family)):
        assert find_model(name) == family / "2"
    assert find_model("battery_type/10") == family / "10"
    with pytest.raises(ModelError, match="there is no folder 'battery_type/9'"):
        find_model("battery_type/9")


def test_site_may_name_a_version_or_the_family(family):
    assert Site.load(SITE, [f"model={family / '1'}"]).model_directory() == family / "1"
    site = Site.load(SITE, [f"model={family}", f"shadow_model={family / '10'}"])
    with pytest.raises(ConfigurationError, match="model: .*none is active"):
        site.model_directory()
    activate(family, "2", 0.0)
    assert site.model_directory() == family / "2"
    assert site.shadow_directory() == family / "10"
    assert Site.load(SITE).shadow_directory() is None
    with pytest.raises(ConfigurationError, match="shadow_model: there is no folder 'nowhere'"):
        Site.load(SITE, ["shadow_model=nowhere"]).shadow_directory()


def test_drift_limits_of_a_site_are_checked_with_it():
    assert Site.load(SITE, ["drift.mix=null"]).drift.mix is None
    with pytest.raises(ConfigurationError, match=r"drift.others.*must be below raise_at"):
        Site.load(SITE, ["drift.others.raise_at=0.2", "drift.others.clear_at=0.3"])
