"""`load_dogs`: the learner's own photos, their splits, drawn dogs, and no silent replacement.

Imagewoof's download is tested with the other downloads.
"""

import os

import pytest
import torch

from helpers import CourseError, image_files
from helpers.data import DRAWN_DOGS, load_dogs, load_image_folder
from helpers.drawn_dogs import load_drawn_dogs
from helpers.image_files import split_of
from helpers.image_stream import ImageFiles
from tests.small_data import noise, one_sentence, refuse_network, write_photos

SPLITS = ("train", "validation", "test")


@pytest.fixture
def kennel(monkeypatch, tmp_path):
    """$COURSE_DATA/dogs with 60 photos; no network."""
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    asked = refuse_network(monkeypatch)
    write_photos(tmp_path / "dogs", 60)
    yield tmp_path / "dogs"
    assert asked == []


def test_every_photo_is_in_one_split_which_its_name_decides(kennel):
    whole, parts = load_image_folder(kennel, 8), {split: load_dogs(8, split) for split in SPLITS}
    assert sorted(name for part in parts.values() for name in part.names) == list(whole.names)
    for split, part in parts.items():
        assert len(part) == part.images.shape[0] > 0 and part.images.shape[1:] == (3, 8, 8) and part.labels is None
        assert all(split_of(name) == split for name in part.names)
        for name, image in zip(part.names, part.images):
            assert torch.equal(image, whole.images[whole.names.index(name)])
        assert part.source == f"{len(part)} photos of folder dogs (COURSE_DATA)" and part.skipped == ()
    assert len(parts["train"]) > 40
    assert torch.equal(load_dogs(8).images, parts["train"].images)


def test_any_folder_is_split_by_the_same_rule(kennel):
    for split in SPLITS:
        mine, dogs = load_image_folder(kennel, 8, split), load_dogs(8, split)
        assert mine.names == dogs.names and torch.equal(mine.images, dogs.images)
    with pytest.raises(CourseError, match="split is 'all'; it can be None, 'train', 'validation', 'test'"):
        load_image_folder(kennel, 8, "all")


def test_more_photos_move_none_from_split_to_split(kennel):
    before = {split: load_dogs(8, split).names for split in SPLITS}
    for i in range(40):
        noise(9, 9, seed=1000 + i).save(kennel / f"new-{i}.png")
    for split in SPLITS:
        assert set(before[split]) <= set(load_dogs(8, split).names)


def test_a_copy_under_another_name_is_in_no_split(kennel):
    for i in range(60):
        name = f"more/{i:03}.png" if i % 2 else f"{i:03}.png"
        (kennel / "more" / f"zz-copy-of-{i:03}.png").write_bytes((kennel / name).read_bytes())
    parts = [load_dogs(8, split) for split in SPLITS]
    assert sum(map(len, parts)) == sum(part.duplicates for part in parts) == 60
    assert not [name for part in parts for name in part.names if "copy" in name]
    assert all(part.duplicates == len(part) for part in parts)


def test_a_broken_photo_is_listed_for_its_split_only(kennel, capsys):
    names = [f"broken-{i}.jpg" for i in range(40)]
    for name in names:
        (kennel / name).write_text(name)
    skipped = {split: [name for name, _ in load_dogs(8, split).skipped] for split in SPLITS}
    assert sorted(sum(skipped.values(), [])) == sorted(names)
    assert all(split_of(name) == split for split, part in skipped.items() for name in part)
    assert capsys.readouterr().out.count("files skipped") == sum(map(bool, skipped.values()))


def test_a_folder_that_may_not_be_read_is_listed_once(kennel, monkeypatch):
    real = os.scandir
    for i in range(60):
        noise(9, 9, seed=1000 + i).save(kennel / f"new-{i}.png")

    def refuse(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    skipped = [name for split in SPLITS for name, _ in load_dogs(8, split).skipped]
    assert skipped == ["more"]


def test_more_photos_than_memory_holds_stay_in_their_files(kennel, monkeypatch):
    memory = load_dogs(8)
    monkeypatch.setattr(image_files, "MEMORY_LIMIT", 1000)
    files = load_dogs(8)
    assert isinstance(files.images, ImageFiles) and torch.equal(files.pixels(), memory.pixels())
    assert (files.source, files.names) == (memory.source, memory.names)


def test_too_few_photos_for_a_split_is_one_sentence(kennel):
    for file in kennel.rglob("*.png"):
        if split_of(file.relative_to(kennel).as_posix()) == "validation":
            file.unlink()
    with pytest.raises(CourseError) as error:
        load_dogs(8, "validation")
    one_sentence(error, "none of its", "validation", str(kennel))


@pytest.mark.parametrize("content", ["nothing", "a text", "a file"])
def test_a_folder_without_photos_is_one_sentence_and_never_something_else(monkeypatch, tmp_path, content):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    asked = refuse_network(monkeypatch)
    if content == "a file":
        (tmp_path / "dogs").touch()
    else:
        (tmp_path / "dogs").mkdir()
        (tmp_path / "dogs" / "read.me").write_text(content)
    with pytest.raises(CourseError) as error:
        load_dogs(8)
    one_sentence(error, str(tmp_path / "dogs"), ".jpg")
    assert asked == []


def test_no_photos_and_no_network_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "new"))
    asked = refuse_network(monkeypatch)
    with pytest.raises(CourseError) as error:
        load_dogs()
    one_sentence(error, "no network here", "COURSE_DATA/dogs", "load_dogs(source='embedded')")
    assert asked == ["https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-160.tgz"]
    assert not any((tmp_path / "new").iterdir())


@pytest.mark.parametrize("split", SPLITS)
def test_the_quick_profile_and_embedded_are_drawn_dogs(kennel, monkeypatch, split):
    monkeypatch.setitem(DRAWN_DOGS, split, 5)
    drawn = load_drawn_dogs(5, 16, split)
    embedded = load_dogs(16, split, source="embedded")
    monkeypatch.setenv("COURSE_PROFILE", "quick")
    quick = load_dogs(16, split)
    for dogs in (embedded, quick):
        assert torch.equal(dogs.images, drawn.images) and dogs.captions == drawn.captions and "drawn" in dogs.source


@pytest.mark.parametrize(
    "wrong", [{"split": "valid"}, {"source": "photos"}, {"resolution": 0}, {"resolution": "64"}, {"resolution": 64.0}]
)
@pytest.mark.parametrize("profile", ["quick", "cpu"])
def test_a_wrong_argument_is_one_sentence(kennel, monkeypatch, profile, wrong):
    monkeypatch.setenv("COURSE_PROFILE", profile)
    with pytest.raises(CourseError) as error:
        load_dogs(**wrong)
    one_sentence(error, *wrong, repr(next(iter(wrong.values()))))
