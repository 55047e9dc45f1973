"""Folders of images: names, copies, splits, and what is said about files that are left out."""

import ast
import hashlib
import os
from collections import Counter

import pytest
import torch

from helpers import CourseError
from helpers.data import image_file
from helpers.data.folder_scan import scan_folder
from helpers.data.image_folder import load_image_folder
from helpers.data.splits import SPLITS, split_of
from tests.data.small_data import noise, one_sentence, write_photos
from tests.tools.common import ROOT


def test_a_good_folder_is_sorted_and_says_nothing(tmp_path, capsys):
    names = write_photos(tmp_path, 5)
    loaded = load_image_folder(tmp_path, 8)
    assert loaded.names == tuple(names) and loaded.skipped == () and loaded.duplicates == 0
    assert capsys.readouterr().out == ""


def test_an_impossible_folder_is_one_sentence_with_the_path_and_what_was_expected(tmp_path):
    noise(5, 5).save(tmp_path / "file.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "one.jpg").write_text("no")
    (tmp_path / "bad" / "two.jpg").write_text("no")
    faults = {
        "nowhere": "is not a folder",
        "file.png": "is not a folder",
        "empty": "no image files",
        "bad": "none of its 2",
    }
    for name, words in faults.items():
        with pytest.raises(CourseError) as error:
            load_image_folder(tmp_path / name)
        one_sentence(error, str(tmp_path / name), words, ".jpg", ".png")


def test_an_empty_name_is_no_folder():
    with pytest.raises(CourseError) as error:
        load_image_folder("")  # pathlib would take the folder that Python runs in
    one_sentence(error, "name is empty")


@pytest.mark.parametrize("resolution", [0, -1, 1.5, "8", None])
def test_an_impossible_resolution_is_one_sentence(tmp_path, resolution):
    with pytest.raises(CourseError) as error:
        load_image_folder(tmp_path, resolution)
    one_sentence(error, "resolution", repr(resolution))


def test_importing_data_brings_no_torchvision_and_no_scikit_learn():
    """They take seconds, and a folder of photographs needs neither."""
    for path in (ROOT / "helpers" / "data").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in getattr(node, "names", ())]
            modules = [getattr(node, "module", None) or "", *names]
            assert not {m.split(".")[0] for m in modules} & {"torchvision", "sklearn"}, path.name


# --- names, copies, files that are left out ---


def test_names_are_written_in_one_way_on_every_system(tmp_path):
    noise(9, 9, seed=1).save(tmp_path / "cafe\u0301.png")  # macOS writes é as two letters
    assert load_image_folder(tmp_path, 8).names == ("caf\u00e9.png",)


def test_the_same_bytes_are_one_image_under_the_first_name(tmp_path, capsys):
    names = write_photos(tmp_path, 6)
    for copy in ("more/zz.png", "aa.png", "more/000.jpg"):
        (tmp_path / copy).write_bytes((tmp_path / "000.png").read_bytes())
    loaded = load_image_folder(tmp_path, 8)
    assert loaded.duplicates == 3 and loaded.skipped == () and capsys.readouterr().out == ""
    assert loaded.names == tuple(names) and len(loaded) == 6

    (tmp_path / "00.png").write_bytes((tmp_path / "000.png").read_bytes())
    assert load_image_folder(tmp_path, 8).names == ("00.png", *names[1:])


def test_broken_files_with_the_same_bytes_are_all_listed(tmp_path, capsys):
    write_photos(tmp_path, 2)
    for name in ("a.jpg", "b.jpg", "c.gif"):
        (tmp_path / name).write_text("404 not found")
    loaded = load_image_folder(tmp_path, 8)
    assert [name for name, _ in loaded.skipped] == ["a.jpg", "b.jpg", "c.gif"]
    assert loaded.duplicates == 0
    told = capsys.readouterr().out
    assert told.startswith("3 of 5 files skipped: a.jpg (no known image format); b.jpg")


def test_a_long_list_of_skipped_files_is_shortened(tmp_path, capsys):
    write_photos(tmp_path, 2)
    for i in range(60):
        (tmp_path / f"broken-{i:03}.jpg").write_text(str(i))
    assert len(load_image_folder(tmp_path, 8).skipped) == 60
    told = capsys.readouterr().out
    assert told.startswith("60 of 62 files skipped: broken-000.jpg (") and told.count(".jpg") == 10
    assert told.endswith("; … and 50 more\n") and told.count("\n") == 1


def refusing(real, word: str):
    """`real`, an opener of files or folders, which refuses paths with `word` in them."""

    def opening(path, *more):
        if word in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *more)

    return opening  # chmod means nothing to root


def test_a_file_and_a_folder_that_may_not_be_read_are_skipped(tmp_path, monkeypatch):
    names = write_photos(tmp_path, 6)
    monkeypatch.setattr(image_file, "open", refusing(open, "002.png"), raising=False)
    monkeypatch.setattr(os, "scandir", refusing(os.scandir, "more"))
    loaded = load_image_folder(tmp_path, 8)
    assert loaded.skipped == (("002.png", "Permission denied"), ("more", "Permission denied"))
    assert loaded.names == tuple(n for n in names if "more" not in n and n != "002.png")


# --- splits ---


@pytest.fixture
def kennel(tmp_path):
    """60 photos, enough for all three splits."""
    write_photos(tmp_path, 60)
    return tmp_path


def test_every_photo_is_in_one_split_which_its_name_decides(kennel):
    whole = load_image_folder(kennel, 8)
    parts = {split: load_image_folder(kennel, 8, split) for split in SPLITS}
    assert sorted(name for part in parts.values() for name in part.names) == list(whole.names)
    for split, part in parts.items():
        assert len(part) > 0 and all(split_of(name) == split for name in part.names)
        positions = torch.tensor([whole.names.index(name) for name in part.names])
        assert torch.equal(part.images, whole.images[positions])

    with pytest.raises(CourseError) as error:
        load_image_folder(kennel, 8, "all")
    one_sentence(error, "split is 'all'; it can be None, 'train', 'validation', 'test'")


def test_more_photos_move_none_from_split_to_split(kennel):
    before = {split: load_image_folder(kennel, 8, split).names for split in SPLITS}
    for i in range(40):
        noise(9, 9, seed=1000 + i).save(kennel / f"new-{i}.png")
    for split in SPLITS:
        assert set(before[split]) <= set(load_image_folder(kennel, 8, split).names)


def test_a_copy_under_another_name_is_in_no_split(kennel):
    for path in list(kennel.rglob("*.png")):
        (kennel / "more" / f"zz-copy-of-{path.name}").write_bytes(path.read_bytes())
    parts = [load_image_folder(kennel, 8, split) for split in SPLITS]
    assert sum(map(len, parts)) == 60 and all(part.duplicates == len(part) for part in parts)
    assert not [name for part in parts for name in part.names if "copy" in name]


def test_what_cannot_be_read_is_listed_for_one_split_only(kennel, monkeypatch, capsys):
    broken = [f"broken-{i}.jpg" for i in range(40)]
    for name in broken:
        (kennel / name).write_text(name)
    for i in range(60):  # photos enough, when the folder below is closed
        noise(9, 9, seed=1000 + i).save(kennel / f"new-{i}.png")
    monkeypatch.setattr(os, "scandir", refusing(os.scandir, "more"))

    listed = Counter()
    for split in SPLITS:
        names = [name for name, _ in load_image_folder(kennel, 8, split).skipped]
        assert all(split_of(name) == split for name in names)
        listed.update(names)
    assert listed == Counter([*broken, "more"])
    assert capsys.readouterr().out.count("files skipped") == 3


def test_four_photos_that_can_be_read_are_enough_for_all_splits(tmp_path, capsys):
    write_photos(tmp_path, 4)
    (tmp_path / "copy.png").write_bytes((tmp_path / "002.png").read_bytes())
    for i in range(30):  # enough of them for every split
        (tmp_path / f"broken-{i}.jpg").write_text(str(i))
    parts = {split: load_image_folder(tmp_path, 8, split) for split in SPLITS}
    assert [len(parts[split]) for split in SPLITS] == [1, 1, 2]
    whole = load_image_folder(tmp_path, 8)
    assert sorted(name for part in parts.values() for name in part.names) == list(whole.names)
    listed = Counter(name for part in parts.values() for name, _ in part.skipped)
    assert listed == Counter(f"broken-{i}.jpg" for i in range(30))


@pytest.mark.parametrize("split", SPLITS)
def test_three_photos_are_too_few_and_that_is_one_sentence(tmp_path, split):
    write_photos(tmp_path, 3)
    for i in range(30):
        (tmp_path / f"broken-{i}.jpg").write_text(str(i))
    assert len(load_image_folder(tmp_path, 8)) == 3
    with pytest.raises(CourseError) as error:
        load_image_folder(tmp_path, 8, split)
    one_sentence(
        error, str(tmp_path), "holds 3 different images that can be read, and 4 are needed"
    )


# --- linked folders, and what is read once ---


@pytest.mark.skipif(os.name == "nt", reason="links need a permission there")
def test_linked_folders_are_followed_once_and_circles_end(tmp_path):
    folder = tmp_path / "photos"
    write_photos(folder, 2)
    write_photos(tmp_path / "elsewhere", 5)
    (folder / "aa").symlink_to(folder / "more")  # by its own name, although it comes later
    (folder / "cats").symlink_to(tmp_path / "elsewhere")
    (folder / "cats again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(folder)
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    files, closed = scan_folder(folder)
    linked = [f"cats/{name}" for name in write_photos(tmp_path / "elsewhere", 5)]
    assert [file.name for file in files] == ["000.png", *linked, "more/001.png"] and not closed


def test_files_are_hashed_once_for_all_splits_and_again_when_they_change(kennel, monkeypatch):
    hashed = []

    def spy(file, name, real=hashlib.file_digest):
        hashed.append(file.name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", spy)
    for split in (*SPLITS, None):
        load_image_folder(kennel, 8, split)
    assert len(hashed) == len(set(hashed)) == 60
    noise(9, 9, seed=99).save(kennel / "000.png")
    load_image_folder(kennel, 8)
    assert hashed[60:] == [str(kennel / "000.png")]


def test_files_without_a_suffix_are_read_where_they_hold_an_image(tmp_path):
    noise(9, 9).save(tmp_path / "IMG_0001", "JPEG")
    noise(9, 9).save(tmp_path / "plain", "PPM")
    (tmp_path / "README").write_text("no picture")
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "cut").write_bytes((tmp_path / "plain").read_bytes()[:60])
    loaded = load_image_folder(tmp_path, 8)
    assert loaded.names == ("IMG_0001", "plain")
    assert [name for name, _ in loaded.skipped] == ["cut"]
