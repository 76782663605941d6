"""Folders of pictures as people have them: what is a type, what is left out, and that it is said."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.vision import picture_folders, pictures
from battery_sorting.vision.picture_folders import all_pictures, find_pictures, is_system_folder
from battery_sorting.vision.pictures import clean_name, label_of_folder, picture_files, picture_name

NFC, NFD = (unicodedata.normalize(form, "Grün") for form in ("NFC", "NFD"))


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (200, 30, 20)).save(path, "PNG" if path.suffix.lower() == ".png" else "JPEG")
    return path


def junk(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def data(tmp_path):
    """Two pictures of Red, one of Blue."""
    for name in ("Red/1.jpg", "Red/2.PNG", "Blue/1.JPG"):
        picture(tmp_path / name)
    return tmp_path


def remarks(folder: Path) -> str:
    return "\n".join(map(str, find_pictures(folder).remarks))


def test_a_plain_data_set_has_no_remarks(data):
    tree = find_pictures(data)
    assert {name: [file.name for file in files] for name, files in tree.types.items()} == {
        "Blue": ["1.JPG"],
        "Red": ["1.jpg", "2.PNG"],
    }
    assert tree.remarks == ()


# issue 15, B9
@pytest.mark.parametrize(
    "name",
    [
        "__MACOSX",
        ".ipynb_checkpoints",
        "@eaDir",
        "#recycle",
        "@Recycle",
        "$RECYCLE.BIN",
        "lost+found",
        ".Trash-1000",
        "RECYCLER",
        ".@__thumb",
        "System Volume Information",
        "system volume information",
        "@Recently-Snapshot",
        "#snapshot",
        "~snapshot",
        ".AppleDouble",
        "__pycache__",
        "LOST.DIR",
        "_unsure",
        " ",
    ],
)
def test_folders_of_systems_become_no_types(data, name):
    picture(data / name / "1.jpg")
    tree = find_pictures(data)
    assert sorted(tree.types) == ["Blue", "Red"]
    assert f"folders that systems and programs make, or that begin with _: 1 ({name}/)" in remarks(data)


@pytest.mark.parametrize("name", ["Thumbs.db", ".DS_Store", "._1.jpg", "desktop.ini", "ehthumbs.db", "~$1.jpg"])
def test_files_of_systems_are_no_pictures(data, name):
    junk(data / "Red" / name)
    assert len(find_pictures(data).types["Red"]) == 2
    assert len(picture_files(data / "Red")) == 2
    assert f"files that systems and programs make: 1 (Red/{name})" in remarks(data)


# issue 15, B9
@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("IMG_1.HEIC", "HEIC pictures", "pip install pillow-heif, or convert them to JPEG"),
        ("1.heif", "HEIC pictures", "pip install pillow-heif"),
        ("1.NEF", "raw files of cameras", "convert them"),
        ("1.dng", "raw files of cameras", "convert them"),
        ("scan.pdf", "PDF documents", "convert them"),
        ("1.jxl", "pictures of a kind that is not read", "convert them"),
        ("1.mp4", "films", "save single frames"),
        ("Red.zip", "archives", "unpack them"),
    ],
)
def test_pictures_that_can_not_be_read_are_told_with_a_remedy(data, monkeypatch, name, what, remedy):
    monkeypatch.setattr(pictures, "HEIC_READERS", ())
    junk(data / "Red" / name)
    said = remarks(data)
    assert f"left out: {what}: 1 (Red/{name}); " in said
    assert remedy in said


def test_many_are_told_by_their_number_and_the_first_names(data, monkeypatch):
    monkeypatch.setattr(pictures, "HEIC_READERS", ())
    for number in range(12):
        junk(data / "Red" / f"IMG_{number:02}.heic")
    assert "HEIC pictures: 12 (Red/IMG_00.heic, Red/IMG_01.heic, Red/IMG_02.heic, …)" in remarks(data)


# issue 15, B9
def test_pictures_in_folders_below_a_types_are_told(data):
    picture(data / "Red" / "new" / "1.jpg")
    picture(data / "Red" / "new" / "deeper" / "2.jpg")
    junk(data / "Red" / "more" / "IMG_1.HEIC")
    junk(data / "Red" / "@eaDir" / "1.jpg" / "SYNOPHOTO_THUMB_M.jpg")
    said = remarks(data)
    assert (
        "pictures in folders below a type's: 3 (Red/more/IMG_1.HEIC, Red/new/1.jpg, Red/new/deeper/2.jpg)" in said
    )
    assert "move them up into the folder of the type" in said
    assert "SYNOPHOTO" not in said


def test_what_lies_beside_the_types_is_told(data):
    picture(data / "stray.png")
    junk(data / "notes.txt")
    junk(data / "Red" / "list.csv")
    said = remarks(data)
    assert "pictures beside the types' folders: 1 (stray.png)" in said
    assert "files that are no pictures: 2 (notes.txt, Red/list.csv)" in said
    assert "beside" not in "\n".join(map(str, find_pictures(data, pictures_here=True).remarks))


def test_pictures_without_a_pictures_ending_are_told(data):
    picture(data / "Red" / "3.jpg").rename(data / "Red" / "IMG_0003")
    assert "pictures whose ending is none of a picture: 1 (Red/IMG_0003); call them .jpg" in remarks(data)


def test_empty_folders_are_told(data):
    (data / "Green").mkdir()
    assert "folders without pictures: 1 (Green/); put pictures in them" in remarks(data)
    assert find_pictures(data).types["Green"] == ()
    assert sorted(find_pictures(data).filled) == ["Blue", "Red"]


# issue 15, B9
def test_two_ways_to_write_an_accent_are_one_type(data):
    picture(data / NFC / "1.jpg")
    picture(data / NFD / "2.jpg")
    tree = find_pictures(data)
    assert sorted(tree.types) == ["Blue", NFC, "Red"]
    assert [file.name for file in tree.types[NFC]] == ["2.jpg", "1.jpg"]
    assert f"folders that are one type, '{NFC}', though their names are written differently: 2" in remarks(data)


@pytest.mark.parametrize("name", ["Red ", " Red", "Red\N{NO-BREAK SPACE}", "\N{ZERO WIDTH SPACE}Red", "\N{BOM}Red"])
def test_what_is_invisible_at_the_ends_of_a_name_makes_no_other_type(data, name):
    picture(data / name / "7.jpg")
    assert {name: len(files) for name, files in find_pictures(data).types.items()} == {"Blue": 1, "Red": 3}


def test_pictures_of_one_name_in_two_folders_of_a_type_are_refused(data):
    picture(data / NFC / "1.jpg")
    picture(data / NFD / "1.jpg")
    with pytest.raises(ConfigurationError, match=f"1 pictures of '{NFC}' are called as others"):
        find_pictures(data)


def test_types_that_differ_in_case_or_spaces_are_told_and_stay_two(data):
    picture(data / "red" / "1.jpg")
    picture(data / "GP Alk" / "1.jpg")
    picture(data / "GP  alk" / "1.jpg")
    tree = find_pictures(data)
    assert sorted(tree.types) == ["Blue", "GP  alk", "GP Alk", "Red", "red"]
    said = remarks(data)
    assert "types whose names differ in case or spaces alone: 4" in said
    assert "left out" not in said


def test_names_that_are_no_text_are_named(data):
    folder = data / "Gr\udcfcn"  # the byte FC, as an archive of another system leaves it
    picture(folder / "1.jpg")
    with pytest.raises(ConfigurationError, match=r"Gr\\udcfcn: the name is no text.*rename"):
        find_pictures(data)
    (folder / "1.jpg").rename(data / "Red" / "\udcfc.jpg")
    folder.rmdir()
    assert "files whose names are no text: 1 (Red/\\udcfc.jpg); rename them" in remarks(data)
    (data / "Two\nlines").mkdir()
    with pytest.raises(ConfigurationError, match=r"Two\\nlines: the name is no text that can be printed"):
        find_pictures(data)


def test_links_are_followed_but_nothing_is_taken_twice(data, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    picture(elsewhere / "1.jpg")
    (data / "Green").symlink_to(elsewhere)
    (data / "Again").symlink_to(data / "Red")
    (data / "loop").symlink_to(data)
    (data / "Red" / "loop").symlink_to(data / "Red")
    (data / "Red" / "gone.jpg").symlink_to(data / "nowhere.jpg")
    (data / "Red" / "self.jpg").symlink_to(data / "Red" / "self.jpg")
    tree = find_pictures(data)
    assert {name: len(files) for name, files in tree.types.items()} == {"Blue": 1, "Green": 1, "Red": 2}
    said = remarks(data)
    assert "links to folders that are taken already: 2 (Again/, loop/)" in said
    assert "broken links, or no plain files: 2 (Red/gone.jpg, Red/self.jpg)" in said


def test_what_lies_far_below_is_looked_at_within_bounds(data, monkeypatch):
    monkeypatch.setattr(picture_folders, "MOST_BELOW", 20)
    for number in range(15):
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            junk(data / "Red" / "deep" / f"{number:02}" / name)
    [below] = [remark for remark in find_pictures(data).remarks if "below" in remark.what]
    assert 0 < len(below.names) <= 45 and "Red/deep/" in below.names[0]


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="no such folder"):
        find_pictures(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="is a file; give a folder"):
        find_pictures(picture(tmp_path / "1.jpg"))


def test_everything_below_a_folder_is_found_once(data):
    picture(data / "Red" / "new" / "9.jpg")
    junk(data / "Red" / ".ipynb_checkpoints" / "1-checkpoint.jpg")
    (data / "Blue" / "loop").symlink_to(data)
    tree = all_pictures(data)
    assert [picture_name(file) for file in tree.here] == ["Blue/1.JPG", "Red/1.jpg", "Red/2.PNG", "new/9.jpg"]
    assert ".ipynb_checkpoints" in str(tree.remarks[0]) or ".ipynb_checkpoints" in str(tree.remarks[1])


def test_remarks_are_said_once_each(data, caplog):
    picture(data / "__MACOSX" / "1.jpg")
    with caplog.at_level(logging.WARNING):
        assert find_pictures(data).told() == find_pictures(data)
    assert [record.message for record in caplog.records] == [
        f"{data}: left out: folders that systems and programs make, or that begin with _: 1 (__MACOSX/); they "
        "are no types; rename one that is"
    ]


def test_names_are_known_however_they_are_written():
    assert clean_name(f" {NFD}\N{NO-BREAK SPACE}") == NFC
    assert picture_name(Path(f"/x/{NFD}/é.jpg")) == f"{NFC}/é.jpg"
    assert [label_of_folder(name) for name in (" Other", "OTHERS ", NFD)] == ["others", "others", NFC]
    assert not is_system_folder(NFD) and is_system_folder("\N{ZERO WIDTH SPACE}")
