"""`battery-sorting inspect` on pictures of drawn cells."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")

from support.tiny_defect_model import write_defect_model
from typer.testing import CliRunner

from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import ConfigurationError

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_defect_model(tmp_path_factory.mktemp("models") / "parts" / "1", crop="none")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two yellow parts under good, two red ones under broken, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for label, colour in (("good", (0, 200, 220)), ("broken", (60, 60, 250))):
        (folder / label).mkdir()
        for n in range(2):
            picture = np.full((200, 900, 3), colour, np.uint8)
            picture[:, : 60 + n] = 40
            cv2.imwrite(str(folder / label / f"{n}.png"), picture)
    (folder / "good" / "broken.jpg").write_bytes(b"broken")
    return folder


def run(*arguments) -> str:
    result = RUNNER.invoke(make_app("inspect"), ["inspect", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_folder_per_class_gives_figures_and_unreadable_files_are_counted(model, pictures):
    said = json.loads(run(pictures, "--model", model, "--json"))
    assert said["model"] == "parts/1"
    assert said["summary"]["pictures"] == 5
    assert said["summary"]["unreadable"] == 1
    assert said["summary"]["verdicts"] == {"defective": 2, "good": 2}
    assert said["summary"]["figures"]["accuracy"]["value"] == 1.0
    assert said["summary"]["figures"]["positive"] == "defective"
    assert said["summary"]["kind_right"] == 1.0
    broken = next(row for row in said["pictures"] if row["truth"] == "broken")
    assert (broken["verdict"], broken["reason"], broken["box"], broken["code"]) == ("defective", "broken", None, "")


def test_the_text_has_a_line_for_each_picture_and_the_positive_class(model, pictures):
    text = run(pictures / "broken", "--model", model)
    assert text.count("defective") >= 3
    assert "positive class: defective" in text


def test_overlays_are_written(model, pictures, tmp_path):
    run(pictures / "broken" / "0.png", "--model", model, "--overlay", tmp_path)
    assert cv2.imread(str(tmp_path / "broken_0.jpg")).shape == (200, 900, 3)


def test_the_threshold_overrules_the_cards(model, pictures):
    said = json.loads(run(pictures / "broken", "--model", model, "--threshold", "0.999", "--json"))
    assert "defective" not in said["summary"]["verdicts"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["x.png"], "--view"),
        (["x.png", "--view", "top"], "lug or case"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, text):
    with pytest.raises(ConfigurationError, match=text):
        RUNNER.invoke(make_app("inspect"), ["inspect", *arguments], catch_exceptions=False)


def test_a_missing_file_is_named(model, tmp_path):
    with pytest.raises(ConfigurationError, match="no such file"):
        RUNNER.invoke(
            make_app("inspect"),
            ["inspect", str(tmp_path / "no.png"), "--model", str(model)],
            catch_exceptions=False,
        )
