"""The simulated camera's pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.vision.synthetic.renderer import make_renderer


@dataclass(frozen=True)
class Item:
    label: str = "Klarus"
    length_mm: float = 50.5
    diameter_mm: float = 14.5
    angle_rad: float = 0.0
    offset_mm: tuple[float, float] = (0.0, 0.0)
    wear: float = 0.0
    seed: int = 1


@pytest.fixture(scope="module")
def drawn():
    return make_renderer(None, 0)


def middle(frame: np.ndarray) -> np.ndarray:
    return frame[462:562, 420:860].astype(int)


def test_frame_has_the_cameras_size(drawn):
    frame = drawn.render(Item(), speed_mps=0.5, t_s=0.0)
    assert frame.shape == (1024, 1280, 3)
    assert frame.dtype == np.uint8


def test_same_item_looks_the_same_in_every_run():
    frames = [make_renderer(None, 3).render(Item(seed=9, wear=0.5), speed_mps=0.6, t_s=4.0) for _ in range(2)]
    assert np.array_equal(frames[0], frames[1])


def test_other_seed_shows_another_side(drawn):
    frames = [drawn.render(Item("GP_Alk", seed=seed), speed_mps=0, t_s=0) for seed in (1, 2)]
    assert np.abs(middle(frames[0]) - middle(frames[1])).mean() > 4


def test_all_types_and_unknown_brands_differ(drawn):
    labels = drawn.types() + drawn.unknown()
    assert len(drawn.types()) == 9
    assert len(drawn.unknown()) >= 8
    looks = [middle(drawn.render(Item(label), speed_mps=0, t_s=0)) for label in labels]
    for n, look in enumerate(looks):
        for other in looks[:n]:
            assert np.abs(look - other).mean() > 5


def test_numbered_unknowns_are_brands_and_other_names_get_a_look_of_their_own(drawn):
    first = drawn.render(Item("unknown_1"), speed_mps=0, t_s=0)
    assert np.abs(middle(first) - middle(drawn.render(Item("unknown_2"), speed_mps=0, t_s=0))).mean() > 5
    assert np.abs(middle(first) - middle(drawn.render(Item("Nobody"), speed_mps=0, t_s=0))).mean() > 5


def test_belt_speed_smears_along_the_belt_only(drawn):
    item = Item("Energizer_Ind", seed=4)
    still, fast = (drawn.render(item, speed_mps=speed, t_s=0).astype(int) for speed in (0.0, 1.2))

    def sharpest_edge(frame, axis):
        return np.percentile(np.abs(np.diff(middle(frame), axis=axis)), 99.8)

    assert sharpest_edge(still, 1) == pytest.approx(sharpest_edge(still, 0), rel=0.2)
    assert sharpest_edge(fast, 1) < 0.65 * sharpest_edge(fast, 0)


def test_battery_lies_where_and_how_the_item_says(drawn):
    yellow = Item("Exell_Yellow", offset_mm=(10.0, -8.0), angle_rad=np.pi / 2, seed=3)
    frame = drawn.render(yellow, speed_mps=0, t_s=0).astype(int)
    mask = (frame[..., 0] - frame[..., 2] > 60).astype(np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    assert height > 2.5 * width
    assert x + width / 2 == pytest.approx(740, abs=12)
    assert y + height / 2 == pytest.approx(432, abs=20)


def test_neighbours_reach_into_the_frame_even_by_a_few_pixels(drawn):
    bare = drawn.render(Item(seed=5), speed_mps=0, t_s=0).astype(int)
    seen = drawn.render(Item(seed=5), speed_mps=0, t_s=0, items_nearby=[(Item("Exell_Yellow"), 75.0)]).astype(int)
    assert np.abs(seen - bare)[:, 1200:].max() > 60
    for distance in np.arange(85.0, 93.0, 0.2):
        drawn.render(Item(seed=5), speed_mps=0, t_s=0, items_nearby=[(Item(angle_rad=0.1), distance)])


def test_bare_belt_shows_no_battery(drawn):
    frame = drawn.render(None, speed_mps=0.5, t_s=1.0)
    assert frame.std() < 20


def test_light_drifts_with_time(drawn):
    means = [drawn.render(Item(), speed_mps=0, t_s=float(t)).mean() for t in range(0, 100, 5)]
    assert 1.1 < max(means) / min(means) < 1.6


def write_picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (90, 300)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[0] + 60, size[1] + 60, 3), 255, np.uint8)
    pixels[30:-30, 30:-30] = colour[::-1]
    ok, data = cv2.imencode(".webp" if path.suffix == ".jpg" else path.suffix, pixels)
    assert ok
    path.write_bytes(data.tobytes())


def test_photographs_lie_on_the_belt_without_their_white_background(tmp_path):
    write_picture(tmp_path / "Red" / "webp_by_another_name.jpg", (200, 20, 20))
    write_picture(tmp_path / "Other" / "1.png", (20, 20, 200))
    renderer = make_renderer(str(tmp_path), 0)
    assert renderer.types() == ["Red"]
    assert renderer.unknown() == ["Other"]
    frame = renderer.render(Item("Red"), speed_mps=0, t_s=0).astype(int)
    red = frame[..., 0] - frame[..., 2] > 80
    assert 0.05 < red.mean() < 0.25
    assert frame.min(axis=2).max() < 200  # nothing white is left
    again = make_renderer(str(tmp_path), 0).render(Item("Red"), speed_mps=0, t_s=0)
    assert np.array_equal(frame, again)


def test_unreadable_pictures_are_skipped_and_counted(tmp_path):
    write_picture(tmp_path / "Red" / "1.png", (200, 20, 20))
    (tmp_path / "Red" / "2.jpg").write_bytes(b"no picture")
    (tmp_path / "Red" / "3.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off here")
    (tmp_path / "Red" / "4.png").write_bytes(b"")
    renderer = make_renderer(str(tmp_path), 0)
    assert len(renderer.skipped) == 2
    for seed in range(4):
        frame = renderer.render(replace(Item("Red"), seed=seed), speed_mps=0, t_s=0).astype(int)
        assert (frame[..., 0] - frame[..., 2] > 80).mean() > 0.05
    assert len(renderer.skipped) == 3
    assert "3.jpg" in renderer.skipped[-1]


# issue 15, B9
def test_folders_of_systems_are_no_types_and_what_is_left_out_is_told(tmp_path, caplog):
    for name in ("Red/1.png", "@eaDir/1.png", ".ipynb_checkpoints/1.png", "__MACOSX/1.png", "Red/._1.png"):
        write_picture(tmp_path / name, (200, 20, 20))
    (tmp_path / "Red" / "1.cr2").write_bytes(b"raw")
    renderer = make_renderer(str(tmp_path), 0)
    assert renderer.types() == ["Red"] and renderer.skipped == []
    assert "raw files of cameras: 1 (Red/1.cr2)" in caplog.text


# issue 15, B9
def test_photographs_of_12_bits_are_not_black_on_the_belt(tmp_path):
    write_picture(tmp_path / "Red" / "1.png", (200, 20, 20))
    shallow = cv2.imread(str(tmp_path / "Red" / "1.png"))
    cv2.imwrite(str(tmp_path / "Red" / "1.png"), shallow.astype(np.uint16) * 16)
    frame = make_renderer(str(tmp_path), 0).render(Item("Red"), speed_mps=0, t_s=0).astype(int)
    assert (frame[..., 0] - frame[..., 2] > 80).mean() > 0.05


@pytest.mark.parametrize("content", ["missing", "empty", "no folders", "only others"])
def test_folder_without_pictures_is_refused_with_its_path_and_the_remedy(tmp_path, content):
    folder = tmp_path / "pictures"
    if content != "missing":
        folder.mkdir()
    if content == "no folders":
        write_picture(folder / "1.png", (200, 20, 20))
    if content == "only others":
        write_picture(folder / "Other" / "1.png", (200, 20, 20))
    with pytest.raises(ConfigurationError, match="sub-folder") as caught:
        make_renderer(str(folder), 0)
    assert str(folder) in str(caught.value)
