"""Random changes of a batch: what they do, how often, and that they can be done again."""

import pytest
import torch

from helpers import CourseError
from helpers.data.augment import (
    add_gaussian_noise,
    blur_and_grain,
    crop_and_flip,
    random_crop,
    random_flip,
    random_shift,
)
from helpers.rng import generator_for
from tests.data.small_data import one_sentence


def places(height: int, width: int, count: int = 1) -> torch.Tensor:
    """Images (count, 2, height, width) in which each pixel has a value of its own; none is 0."""
    one = torch.arange(1.0, 2 * height * width + 1).view(1, 2, height, width)
    return one + 1000 * torch.arange(count).view(-1, 1, 1, 1)


def test_random_flip_mirrors_half_of_the_images_left_to_right():
    images = places(5, 7, 400)
    flipped = random_flip(images, generator_for("flip"))
    mirrored = (flipped == images.flip(3)).all((1, 2, 3))
    same = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ same).all() and 150 < mirrored.sum() < 250
    assert torch.equal(flipped, random_flip(images, generator_for("flip")))


@pytest.mark.parametrize("pixels", [1, 2])
def test_random_shift_moves_whole_images_in_both_directions(pixels):
    images = places(5, 7).repeat(400, 1, 1, 1)
    shifted = random_shift(images, generator_for("shift"), pixels)

    wide = torch.zeros(2, 5 + 2 * pixels, 7 + 2 * pixels)
    wide[:, pixels : pixels + 5, pixels : pixels + 7] = images[0]
    steps = range(2 * pixels + 1)
    candidates = {(y, x): wide[:, y : y + 5, x : x + 7] for y in steps for x in steps}
    seen = [
        next((shift for shift, moved in candidates.items() if moved.equal(image)), None)
        for image in shifted
    ]
    assert set(seen) == set(candidates)  # every shift occurs, and nothing else does
    assert torch.equal(shifted, random_shift(images, generator_for("shift"), pixels))


@pytest.mark.parametrize(
    ("height", "width", "size"), [(5, 7, 4), (7, 5, 4), (4, 4, 4), (6, 4, 4), (3, 9, 1)]
)
def test_random_crop_cuts_every_square_equally_often(height, width, size):
    images = places(height, width, 2000)
    crops = random_crop(images, generator_for("crop"), size)
    assert crops.shape == (2000, 2, size, size)

    corner = (crops[:, 0, 0, 0] % 1000).long() - 1
    down = corner // width
    right = corner % width
    for image, crop, y, x in zip(images[:200], crops, down.tolist(), right.tolist()):
        assert torch.equal(crop, image[:, y : y + size, x : x + size])

    counts = torch.zeros(height - size + 1, width - size + 1)
    counts.index_put_((down, right), torch.ones(2000), accumulate=True)
    mean = 2000 / counts.numel()
    assert (counts - mean).abs().max() <= 5 * mean**0.5
    assert images.equal(places(height, width, 2000))  # unchanged
    assert torch.equal(crops, random_crop(images, generator_for("crop"), size))


def test_crop_and_flip_does_both():
    """Every picture comes out as one of the squares of its original, some of them mirrored."""
    images = places(5, 7, 40)
    made = crop_and_flip(images, generator_for("both"), 4)
    mirrored = 0
    for image, one in zip(images, made, strict=True):
        squares = [image[:, y : y + 4, x : x + 4] for y in range(2) for x in range(4)]
        straight = any(torch.equal(one, square) for square in squares)
        mirrored += not straight
        assert straight or any(torch.equal(one, square.flip(2)) for square in squares)
    assert 8 < mirrored < 32


def test_blur_and_grain_softens_half_of_the_images_and_changes_all_a_little():
    stripes = torch.tensor([0.2, 0.8]).repeat(8).expand(200, 3, 16, 16)
    changed = blur_and_grain(stripes, generator_for("grain"))
    assert changed.min() >= 0 and changed.max() <= 1
    spread = changed.std((1, 2, 3))
    soft = spread < 0.15
    assert 70 < soft.sum() < 130 and (spread[~soft] > 0.25).all()
    assert ((changed[~soft] - stripes[~soft]).std((1, 2, 3)) < 0.06).all()
    assert len(changed.flatten(1).unique(dim=0)) == 200


@pytest.mark.parametrize(
    "augment",
    [
        random_flip,
        random_shift,
        blur_and_grain,
        lambda images, generator: crop_and_flip(images, generator, 4),
    ],
    ids=["flip", "shift", "grain", "crop"],
)
def test_two_processes_change_what_one_would(augment):
    images = places(6, 8, 12) / 20_000
    whole = augment(images, generator_for("shared"))
    parts = [
        augment(images[i * 6 : i * 6 + 6], generator_for("shared", shard=(i, 2))) for i in (0, 1)
    ]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("size", [6, 0, -1])
def test_an_impossible_crop_is_one_sentence(size):
    with pytest.raises(CourseError) as error:
        random_crop(places(5, 8), generator_for("crop"), size)
    one_sentence(error, str(size), "5×8")


def test_noise_has_its_spread_and_stays_in_the_range_of_images():
    grey = torch.full((50, 2, 10, 14), 0.5)
    noise = add_gaussian_noise(grey, 0.1, generator_for("noise")) - 0.5
    assert abs(noise.mean()) < 0.004 and abs(noise.std() - 0.1) < 0.004
    strong = add_gaussian_noise(grey, 2.0, generator_for("noise"))
    assert strong.min() == 0 and strong.max() == 1
