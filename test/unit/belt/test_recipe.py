"""Recipes: what is read, and whether they fit to a site and a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from battery_sorting.belt.recipe import BeltRecipe, check
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.lines import load_site

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def site():
    return BeltSite.load("sim")


def changed(*overrides: str) -> BeltRecipe:
    return BeltRecipe.load("batsort", overrides)


def test_shipped_recipe_fits_to_the_shipped_sites():
    recipe = BeltRecipe.load("batsort")
    for path in (REPOSITORY / "config" / "sites").glob("*.yaml"):
        site = load_site(str(path))
        if not isinstance(site, BeltSite):
            continue
        result = check(recipe, site, [*recipe.routes])
        assert (result.problems, result.warnings) == ([], [])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("threshold=80", "80 is given in percent: it must be 0..1, write 0.8"),
        ("threshold=-0.1", "must be greater than or equal to 0"),
        ("threshold=high", "must be a valid number, not 'high'"),
        ("min_gap_mm=0.06", "given in metres? Write 60"),
        ("min_gap=60", "did you mean 'min_gap_mm', in millimetres?"),
        ("min_lead_ms=0.04", "given in seconds? Write 40"),
        ("speed_mps=500", "must be less than or equal to 5"),
        ("speed=0.5", "did you mean 'speed_mps', in metres per second?"),
        ("routes={}", "at least 1 item"),
        ("routes.Klarus=7", "must be a valid string, not 7"),
        ("thresholt=0.8", "did you mean 'threshold'?"),
    ],
)
def test_mistake_is_named_with_its_remedy(override, expected):
    with pytest.raises(ConfigurationError) as error:
        changed(override)
    assert any(expected in problem for problem in error.value.problems), error.value.problems


def test_recipe_that_does_not_fit_says_all_that_is_wrong(site):
    recipe = changed("routes.Klarus=klaru", "routes.Varta=klarus", "speed_mps=1.3")
    labels = [label for label in recipe.routes if label != "Varta"]
    result = check(recipe, site, labels)
    assert [problem.split(":")[0] for problem in result.problems] == [
        "routes.Klarus",
        "routes.Varta",
        "speed_mps",
    ]
    assert "did you mean 'klarus'?" in result.problems[0]


def test_odd_but_possible_recipes_give_warnings(site):
    recipe = changed("routes.Klarus=gp_alk")
    result = check(recipe, site, [*recipe.routes, "Varta"])
    assert result.problems == []
    assert result.warnings == [
        "bins: nothing is routed to bin 'klarus'",
        "routes: the model also knows Varta: they go to 'others'",
    ]


def test_first_ejector_that_leaves_too_little_time_gives_a_warning():
    near = BeltSite.load("sim", ["ejectors[0].offset_mm=200"])
    assert check(changed("speed_mps=0.5"), near).warnings == []
    (warning,) = check(changed("speed_mps=1.2"), near).warnings
    assert "119 ms to decide" in warning


def test_resolved_recipe_is_the_same_recipe(tmp_path):
    recipe = changed("threshold=0.9", "speed_mps=1")
    recipe.save_resolved(tmp_path / "recipe.json")
    assert BeltRecipe.load_resolved(tmp_path / "recipe.json") == recipe


def test_batteries_too_close_in_time_to_tell_their_frames_apart_are_refused(site):
    result = check(changed("min_gap_mm=40", "speed_mps=1.2"), site)
    assert any("raise it to 49 mm" in problem for problem in result.problems), result.problems
