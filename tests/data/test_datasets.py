"""Digits, MNIST and dogs: found, shaped and split as they say, and never silently replaced.

Downloads have tests of their own.
"""

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from helpers import CourseError
from helpers.data.datasets import DRAWN_DOGS, load_digits, load_dogs, load_mnist
from helpers.data.downloads import MNIST_FILES, check_mnist_file
from helpers.data.image_folder import SPLITS, load_image_folder
from helpers.data.synthetic_dogs import load_synthetic_dogs
from helpers.env import data_dir
from tests.data.small_data import idx, one_sentence, refuse_network, write_mnist, write_photos


@pytest.fixture
def asked(monkeypatch, tmp_path) -> list[str]:
    """The `cpu` profile with an empty COURSE_DATA and no network; the pages that are asked for."""
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    return refuse_network(monkeypatch)


# --- digits and MNIST ---


def test_digits_are_shaped_like_mnist_and_their_splits_share_nothing():
    train = load_digits("train")
    test = load_digits("test")
    assert len(train) + len(test) == 1797 and len(test) == 360
    for part in (train, test):
        assert part.images.shape[1:] == (1, 28, 28) and part.images.dtype == torch.uint8
        assert part.labels.dtype == torch.int64 and set(part.labels.tolist()) == set(range(10))
        assert part.images.max() > 240 and part.images[:, :, :4].max() == 0
    contents = [{image.numpy().tobytes() for image in part.images} for part in (train, test)]
    assert not contents[0] & contents[1]
    assert "scikit-learn" in train.source


def test_the_quick_profile_uses_no_network_and_no_files(asked, monkeypatch, tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw", monkeypatch)
    monkeypatch.setenv("COURSE_PROFILE", "quick")
    loaded = load_mnist("test")
    assert torch.equal(loaded.images, load_digits("test").images) and "embedded" in loaded.source
    assert asked == []


def test_mnist_is_found_where_course_data_says(asked, monkeypatch, tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw", monkeypatch)
    train = load_mnist("train")
    test = load_mnist("test")
    assert train.images.shape == (12, 1, 28, 28) and test.images.shape == (5, 1, 28, 28)
    assert train.images[:, 0, 3, 4].tolist() == list(range(12))
    assert test.labels.tolist() == list(range(5))
    assert train.labels.dtype == torch.int64 and train.images.dtype == torch.uint8
    assert train.source == "MNIST, found in COURSE_DATA"
    assert torch.equal(load_mnist("train", source="embedded").images, load_digits().images)
    assert asked == []


def test_mnist_that_cannot_be_had_is_one_sentence_and_never_something_else(asked, tmp_path):
    with pytest.raises(CourseError) as error:
        load_mnist()
    one_sentence(error, "no network here", "train-images", "source='embedded'", "COURSE_DATA/MNIST")
    assert asked and not any(path.is_file() for path in tmp_path.rglob("*"))


ZEROS = np.zeros((12, 28, 28), dtype=np.uint8)
WRONG_FILES = {
    "empty": ("images-idx3", b"", "it has 0 bytes and not 9,424"),
    "cut off in the header": ("images-idx3", idx(ZEROS)[:10], "10 bytes and not 9,424"),
    "cut off": ("images-idx3", idx(ZEROS)[:5000], "5,000 bytes and not 9,424"),
    "with more behind it": ("labels-idx1", idx(ZEROS[:, 0, 0]) + b"..", "22 bytes and not 20"),
    "fewer labels": ("labels-idx1", idx(ZEROS[:5, 0, 0]), "its header says 5 bytes and not 12"),
    "test images": ("images-idx3", idx(ZEROS[:5]), "says 5×28×28 bytes and not 12×28×28"),
    "32 pixels": ("images-idx3", idx(np.zeros((12, 32, 32), np.uint8)), "says 12×32×32 bytes"),
    "little-endian": ("images-idx3", idx(ZEROS, "little"), "its numbers are little-endian"),
    "another data set": ("images-idx3", idx(ZEROS), "another data set, such as Fashion-MNIST"),
    "other labels": ("labels-idx1", idx(ZEROS[:, 0, 0]), "another data set"),
    "a page": ("images-idx3", b"<html>404 not found</html>", "its header says"),
}


@pytest.mark.parametrize("fault", WRONG_FILES)
def test_what_is_not_mnist_is_one_sentence_that_names_the_file(asked, monkeypatch, tmp_path, fault):
    write_mnist(tmp_path / "MNIST" / "raw", monkeypatch)
    kind, content, words = WRONG_FILES[fault]
    name = f"train-{kind}-ubyte"
    (tmp_path / "MNIST" / "raw" / name).write_bytes(content)
    with pytest.raises(CourseError) as error:
        load_mnist("train")
    one_sentence(error, f"{name} in COURSE_DATA/MNIST/raw is not MNIST's", words, "Delete it")
    assert len(load_mnist("test")) == 5  # whose files are right


def test_what_cannot_be_read_is_one_sentence(asked, monkeypatch, tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw", monkeypatch)
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.unlink()
    path.mkdir()
    with pytest.raises(CourseError) as error:
        load_mnist("test")
    one_sentence(error, path.name, "cannot be read", "source='embedded'")


def test_the_known_files_are_those_that_are_downloaded():
    assert [f"{name}.gz" for name in MNIST_FILES] == [name for name, _ in MNIST.resources]
    raw = data_dir() / "MNIST" / "raw"
    for name in MNIST_FILES if raw.is_dir() else ():
        check_mnist_file(raw / name)


# --- dogs ---


def test_photos_of_your_own_come_first_and_are_split_like_any_folder(asked, tmp_path):
    write_photos(tmp_path / "dogs", 60)
    for split in SPLITS:
        dogs = load_dogs(8, split)
        same = load_image_folder(tmp_path / "dogs", 8, split)
        assert dogs.names == same.names and torch.equal(dogs.images, same.images)
        assert dogs.source == f"{len(dogs)} photos of folder dogs (COURSE_DATA)"
    assert torch.equal(load_dogs(8).images, load_dogs(8, "train").images) and asked == []


@pytest.mark.parametrize("content", ["nothing", "a text", "a file"])
def test_a_dogs_folder_without_photos_is_one_sentence_and_never_replaced(asked, tmp_path, content):
    if content == "a file":
        (tmp_path / "dogs").touch()
    else:
        (tmp_path / "dogs").mkdir()
        (tmp_path / "dogs" / "read.me").write_text(content)
    with pytest.raises(CourseError) as error:
        load_dogs(8)
    one_sentence(error, str(tmp_path / "dogs"), ".jpg")
    assert asked == []


def test_no_photos_and_no_network_is_one_sentence(asked, tmp_path):
    with pytest.raises(CourseError) as error:
        load_dogs()
    one_sentence(error, "no network here", "COURSE_DATA/dogs", "load_dogs(source='embedded')")
    assert asked == ["https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-160.tgz"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split", SPLITS)
def test_the_quick_profile_and_embedded_are_synthetic_dogs(asked, monkeypatch, tmp_path, split):
    write_photos(tmp_path / "dogs", 2)
    monkeypatch.setitem(DRAWN_DOGS, split, 5)
    drawn = load_synthetic_dogs(5, 16, split)
    embedded = load_dogs(16, split, source="embedded")
    monkeypatch.setenv("COURSE_PROFILE", "quick")
    for dogs in (embedded, load_dogs(16, split)):
        assert torch.equal(dogs.images, drawn.images) and dogs.captions == drawn.captions
        assert dogs.source == "drawn dogs, embedded"
    assert asked == []


# --- wrong arguments ---


@pytest.mark.parametrize("profile", ["quick", "cpu"])
@pytest.mark.parametrize(
    ("load", "wrong"),
    [
        (load_digits, {"split": "validation"}),
        (load_mnist, {"split": "valid"}),
        (load_mnist, {"source": "digits"}),
        (load_dogs, {"split": "valid"}),
        (load_dogs, {"source": "photos"}),
        (load_dogs, {"resolution": 0}),
        (load_dogs, {"resolution": 64.0}),
    ],
)
def test_a_wrong_argument_is_one_sentence(asked, monkeypatch, profile, load, wrong):
    monkeypatch.setenv("COURSE_PROFILE", profile)
    ((name, value),) = wrong.items()
    with pytest.raises(CourseError) as error:
        load(**wrong)
    one_sentence(error, name, repr(value))
    assert asked == []
