"""`battery-sorting inspect` on pictures of drawn cells."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")

from support.tiny_defect_model import write_defect_model
from typer.testing import CliRunner

from battery_sorting.cli._pictures import overlay_names
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


# issue 15, B9
def test_overlays_do_not_overwrite_each_other(model, pictures, tmp_path):
    source = (pictures / "broken" / "0.png").read_bytes()
    names = ["a/1.png", "b/1.png", "a/1.jpg", "a/1.PNG", "x/a/1.png", "a_1/2.png", "a/1_2.png", "A/1.png"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(source)
    files = [tmp_path / "in" / name for name in names]
    run(*files, "--model", model, "--overlay", tmp_path / "out")
    drawn = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert len({name.casefold() for name in drawn}) == len(names)
    assert "b_1.jpg" in drawn and "a_1.jpg.jpg" in drawn
    assert all(cv2.imread(str(tmp_path / "out" / name)).shape == (200, 900, 3) for name in drawn)


def test_the_same_folder_gets_the_same_overlays_again(pictures):
    files = sorted(pictures.glob("*/*.png"))
    names = overlay_names(files)
    assert names == overlay_names(files[::-1])
    assert names[pictures / "good" / "0.png"] == "good_0.jpg"
    long = Path("/") / ("ü" * 120) / ("n" * 200 + ".png")
    assert len(overlay_names([long])[long].encode()) <= 204


def test_an_overlay_that_can_not_be_written_is_named(model, pictures, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match=r"--overlay .*file: 1 problem\n.*is no folder"):
        run(pictures / "broken" / "0.png", "--model", model, "--overlay", tmp_path / "file")


# issue 15, B9
def test_what_is_left_out_of_a_folder_is_told(model, pictures, tmp_path):
    for name in ("broken/0.png", "broken/@eaDir/0.png", "__MACOSX/._0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((pictures / "broken" / "0.png").read_bytes())
    (tmp_path / "broken" / "1.cr2").write_bytes(b"II*\0")
    result = RUNNER.invoke(make_app("inspect"), ["inspect", str(tmp_path), "--model", str(model), "--json"])
    said = json.loads(result.stdout)
    assert [row["truth"] for row in said["pictures"]] == ["broken"]
    assert any("raw files of cameras: 1 (broken/1.cr2)" in text for text in said["left_out"])
    assert any("2 (__MACOSX/, broken/@eaDir/)" in text for text in said["left_out"])
    assert "warning: " in result.stderr and "raw files" in result.stderr


# issue 15, B9
def test_pictures_of_12_bits_are_judged_like_their_8_bits(model, pictures, tmp_path):
    shallow = cv2.imread(str(pictures / "broken" / "0.png"))
    (tmp_path / "broken").mkdir()
    cv2.imwrite(str(tmp_path / "broken" / "12.png"), shallow.astype(np.uint16) * 16 + 8)
    cv2.imwrite(str(tmp_path / "broken" / "8.png"), shallow)
    said = json.loads(run(tmp_path / "broken", "--model", model, "--json"))
    deep, same = (row["probability"] for row in said["pictures"])
    assert deep == pytest.approx(same, abs=1e-3)


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
