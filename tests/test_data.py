"""Image sets, batches, digits and MNIST."""

import pytest
import torch

from helpers import CourseError
from helpers.budget import generator_for
from helpers.data import Batches, ImageSet, crop_and_flip, load_digits, load_mnist, random_crop, random_flip, random_shift
from tests.small_data import one_sentence, refuse_network, write_mnist


def numbered(count: int = 10, height: int = 2, width: int = 3) -> ImageSet:
    """Image i has the value i everywhere, the label i, and the name "i"."""
    values = torch.arange(count)
    images = values.to(torch.uint8)[:, None, None, None].expand(count, 1, height, width).contiguous()
    return ImageSet(images, values, "numbered", tuple(str(i) for i in range(count)))


# --- image sets and batches ---


def test_split_is_deterministic_disjoint_and_keeps_what_belongs_together():
    rest, held = numbered(50).split(20)
    assert (len(rest), len(held)) == (30, 20)
    assert sorted(rest.labels.tolist() + held.labels.tolist()) == list(range(50))
    for part in (rest, held):
        assert part.images[:, 0, 0, 0].tolist() == part.labels.tolist() == [int(name) for name in part.names]
        assert part.source == "numbered"
    assert torch.equal(numbered(50).split(20)[1].labels, held.labels)
    assert not torch.equal(numbered(50).split(20, seed=1)[1].labels, held.labels)
    assert held.labels.tolist() != list(range(20)) and held.labels.tolist() != list(range(30, 50))


@pytest.mark.parametrize("size", [0, 10, -1, 11])
def test_an_impossible_split_is_one_sentence(size):
    with pytest.raises(CourseError) as error:
        numbered(10).split(size)
    one_sentence(error, f"{size} of 10")


def test_slices_and_masks():
    some = numbered(10)
    assert some[2:4].names == ("2", "3") and some[2:4].labels.tolist() == [2, 3]
    assert some[some.labels > 7].names == ("8", "9")
    assert some[torch.tensor([5, 1])].images[:, 0, 0, 0].tolist() == [5, 1]
    without = ImageSet(some.images, None, "x")[:3]
    assert len(without) == 3 and without.labels is None and without.names == ()


def test_pixels_are_between_0_and_1():
    pixels = ImageSet(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), None, "x").pixels()
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels.flatten(), torch.tensor([0, 0.2, 1]))


def order(batches: Batches, epoch: int, **options) -> list[list[int]]:
    return [batch.labels.tolist() for batch in batches.epoch(epoch, **options)]


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own():
    batches = Batches(numbered(12), 4, seed=3)
    first = order(batches, 0)
    assert len(batches) == 3 and [len(batch) for batch in first] == [4, 4, 4]
    assert sorted(sum(first, [])) == list(range(12)) and sum(first, []) != list(range(12))
    assert order(batches, 1) != first
    assert order(Batches(numbered(12), 4, seed=4), 0) != first
    torch.manual_seed(99)
    assert order(Batches(numbered(12), 4, seed=3), 0) == first


def test_batches_pair_images_with_their_labels():
    for batch in Batches(numbered(12), 5).epoch(0):
        assert batch.images.shape == (5, 1, 2, 3) and batch.images.dtype == torch.float32
        torch.testing.assert_close(batch.images[:, 0, 0, 0] * 255, batch.labels.float())
    unlabelled = ImageSet(numbered(12).images, None, "x")
    assert next(Batches(unlabelled, 5).epoch(0)).labels is None


def test_the_last_smaller_batch_is_left_out():
    batches = Batches(numbered(11), 4)
    assert len(batches) == 2 and [len(batch) for batch in order(batches, 0)] == [4, 4]
    assert len(set(sum((sum(order(batches, epoch), []) for epoch in range(9)), []))) == 11  # not the same three


def test_an_epoch_can_be_entered_in_the_middle():
    def shift(images, generator):
        return images + torch.rand(len(images), 1, 1, 1, generator=generator)

    batches = Batches(numbered(12), 4, augment=shift)
    whole, rest = list(batches.epoch(2)), list(batches.epoch(2, start=1))
    assert len(rest) == 2
    for batch, again in zip(whole[1:], rest, strict=True):
        assert torch.equal(batch.images, again.images) and torch.equal(batch.labels, again.labels)
    assert list(batches.epoch(2, start=3)) == []


def test_processes_share_a_batch_row_by_row():
    images = torch.randint(0, 255, (12, 1, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batches = Batches(ImageSet(images, torch.arange(12), "noise"), 6, augment=random_flip)
    whole = list(batches.epoch(1))
    for count in (2, 3):
        parts = [list(batches.epoch(1, shard=(i, count))) for i in range(count)]
        for step, batch in enumerate(whole):
            assert torch.equal(torch.cat([part[step].images for part in parts]), batch.images)
            assert torch.equal(torch.cat([part[step].labels for part in parts]), batch.labels)


@pytest.mark.parametrize("size", [11, 0])
def test_an_impossible_batch_is_one_sentence(size):
    with pytest.raises(CourseError) as error:
        Batches(numbered(10), size)
    one_sentence(error, str(size), "10")


def distinct(count: int = 400) -> torch.Tensor:
    """Images (count, 2, 5, 7) in which every pixel has a value of its own, and none is 0."""
    return torch.arange(1, 71).float().view(1, 2, 5, 7).repeat(count, 1, 1, 1)


def test_random_flip_mirrors_half_of_the_images_left_to_right():
    images = distinct()
    flipped = random_flip(images, generator_for("flip"))
    mirrored = (flipped == images.flip(3)).all((1, 2, 3))
    same = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ same).all() and 150 < mirrored.sum() < 250
    assert torch.equal(flipped, random_flip(images, generator_for("flip")))


@pytest.mark.parametrize("pixels", [1, 2])
def test_random_shift_moves_whole_images_in_both_directions(pixels):
    images = distinct()
    shifted = random_shift(images, generator_for("shift"), pixels)
    candidates = {}
    for down in range(-pixels, pixels + 1):
        for right in range(-pixels, pixels + 1):
            moved = torch.zeros(2, 5, 7)
            moved[:, max(down, 0) : 5 + min(down, 0), max(right, 0) : 7 + min(right, 0)] = images[
                0, :, max(-down, 0) : 5 - max(down, 0), max(-right, 0) : 7 - max(right, 0)
            ]
            candidates[down, right] = moved
    seen = [next((k for k, v in candidates.items() if torch.equal(v, image)), None) for image in shifted]
    assert None not in seen and set(seen) == set(candidates)  # every shift occurs
    assert images.equal(distinct())
    assert torch.equal(shifted, random_shift(images, generator_for("shift"), pixels))


def places(height: int, width: int, count: int = 1) -> torch.Tensor:
    """Images (count, 2, height, width) in which each pixel has a value of its own."""
    one = torch.arange(2.0 * height * width).view(1, 2, height, width)
    return one + 1000 * torch.arange(count).view(-1, 1, 1, 1)


@pytest.mark.parametrize(("height", "width", "size"), [(5, 7, 4), (7, 5, 4), (4, 4, 4), (6, 4, 4), (3, 9, 1)])
def test_random_crop_cuts_every_square_equally_often(height, width, size):
    images = places(height, width, 2000)
    crops = random_crop(images, generator_for("crop"), size)
    assert crops.shape == (2000, 2, size, size)
    down, right = (crops[:, 0, 0, 0] % 1000).long() // width, (crops[:, 0, 0, 0] % 1000).long() % width
    for image, crop, y, x in zip(images[:200], crops, down.tolist(), right.tolist()):
        assert torch.equal(crop, image[:, y : y + size, x : x + size])
    counts = torch.zeros(height - size + 1, width - size + 1).index_put_((down, right), torch.ones(2000), accumulate=True)
    mean = 2000 / counts.numel()
    assert (counts - mean).abs().max() <= 5 * mean**0.5  # every place occurs, and none too often
    assert images.equal(places(height, width, 2000))
    assert torch.equal(crops, random_crop(images, generator_for("crop"), size))


def test_two_processes_cut_what_one_would():
    images = places(6, 9, 12)
    whole = random_crop(images, generator_for("crop"), 4)
    parts = [random_crop(images[i * 6 : i * 6 + 6], generator_for("crop", shard=(i, 2)), 4) for i in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("size", [6, 0, -1])
def test_an_impossible_crop_is_one_sentence(size):
    with pytest.raises(CourseError) as error:
        random_crop(places(5, 8), generator_for("crop"), size)
    one_sentence(error, str(size), "5×8")


# --- digits and MNIST ---


@pytest.fixture
def offline(monkeypatch) -> list[str]:
    """The pages that were asked for, in vain."""
    return refuse_network(monkeypatch)


def test_digits_are_shaped_like_mnist_and_their_splits_share_nothing():
    train, test = load_digits("train"), load_digits("test")
    assert len(train) + len(test) == 1797 and len(test) == 360
    for part in (train, test):
        assert part.images.shape[1:] == (1, 28, 28) and part.images.dtype == torch.uint8
        assert part.labels.dtype == torch.int64 and set(part.labels.tolist()) == set(range(10))
        assert part.images.max() > 240 and part.images[:, :, :4].max() == 0
    as_bytes = [{bytes(image.flatten().tolist()) for image in part.images} for part in (train, test)]
    assert not as_bytes[0] & as_bytes[1]
    assert "scikit-learn" in train.source


def test_the_quick_profile_uses_no_network_and_no_files(monkeypatch, tmp_path, offline):
    write_mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    loaded = load_mnist("test")
    assert torch.equal(loaded.images, load_digits("test").images) and "embedded" in loaded.source
    assert offline == []


def test_mnist_is_found_where_course_data_says(monkeypatch, tmp_path, offline):
    write_mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    train, test = load_mnist("train"), load_mnist("test")
    assert train.images.shape == (12, 1, 28, 28) and test.images.shape == (5, 1, 28, 28)
    assert train.images[:, 0, 3, 4].tolist() == list(range(12)) and test.labels.tolist() == list(range(5))
    assert train.labels.dtype == torch.int64 and train.images.dtype == torch.uint8
    assert "MNIST" in train.source and str(tmp_path) not in train.source
    assert torch.equal(load_mnist("train", source="embedded").images, load_digits().images)
    assert offline == []


def test_mnist_that_cannot_be_had_is_one_sentence_and_never_something_else(monkeypatch, tmp_path, offline):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(CourseError) as error:
        load_mnist()
    one_sentence(error, "no network here", "train-images-idx3-ubyte.gz", "source='embedded'", "COURSE_DATA")
    assert offline and not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_truncated_mnist_file_is_one_sentence(monkeypatch, tmp_path, offline, keep):
    write_mnist(tmp_path / "MNIST" / "raw")
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(CourseError) as error:
        load_mnist("train")
    one_sentence(error, "MNIST/raw", "delete", "embedded")
    assert len(load_mnist("test")) == 5


@pytest.mark.parametrize("wrong", [{"split": "valid"}, {"source": "digits"}])
def test_a_wrong_argument_is_one_sentence(wrong):
    with pytest.raises(CourseError) as error:
        load_mnist(**wrong)
    one_sentence(error, next(iter(wrong)), next(iter(wrong.values())))


def test_crop_and_flip_does_both():
    """Every picture comes out as one of the squares of its original, some of them mirrored."""
    images = torch.arange(40 * 3 * 5 * 7).view(40, 3, 5, 7).float()
    out, mirrored = crop_and_flip(images, generator_for("both"), 4), 0
    for image, made in zip(images, out, strict=True):
        squares = [image[:, y : y + 4, x : x + 4] for y in range(2) for x in range(4)]
        straight = any(torch.equal(made, square) for square in squares)
        mirrored += not straight
        assert straight or any(torch.equal(made, square.flip(2)) for square in squares)
    assert 8 < mirrored < 32
