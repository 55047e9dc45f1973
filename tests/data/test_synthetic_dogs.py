"""Synthetic dogs: reproducible, balanced, and truly described by their captions and factors."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers import CourseError
from helpers.data import synthetic_dogs
from helpers.data.image_set import ImageSet
from helpers.data.splits import SPLITS
from helpers.data.synthetic_dogs import (
    COATS,
    EARS,
    GROUNDS,
    PLACES,
    POSES,
    RANGES,
    SyntheticDogs,
    caption,
    draw_dog,
    load_synthetic_dogs,
)
from tests.data.small_data import one_sentence

COMBINATIONS = list(itertools.product(COATS, EARS, GROUNDS))


@pytest.fixture(scope="module")
def dogs() -> SyntheticDogs:
    return load_synthetic_dogs(48, 64)


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Dogs without their pictures, which are what takes time."""
    black = torch.zeros(3, 16, 16, dtype=torch.uint8)
    monkeypatch.setattr(synthetic_dogs, "_image", lambda dog, resolution: black)


def named(dogs: SyntheticDogs) -> list[tuple[str, str, str]]:
    """(coat, ears, ground) of each dog, from the factors."""
    columns = [dogs.factors[name].tolist() for name in ("coat", "ears", "ground")]
    return [(COATS[c], EARS[e], GROUNDS[g]) for c, e, g in zip(*columns, strict=True)]


# --- the set ---


def test_a_set_of_dogs_is_an_image_set_with_captions_and_factors(dogs):
    assert isinstance(dogs, ImageSet) and len(dogs) == len(dogs.captions) == 48
    assert dogs.images.shape == (48, 3, 64, 64) and dogs.images.dtype == torch.uint8
    assert dogs.images.min() < 60 and dogs.images.max() > 240
    assert dogs.labels.dtype == torch.int64 and torch.equal(dogs.labels, dogs.factors["coat"])
    kinds = {
        torch.int64: {"coat", "ears", "ground", "pose"},
        torch.bool: {"mirrored", "tongue"},
        torch.float32: set(RANGES),
    }
    for dtype, names in kinds.items():
        found = {name for name, values in dogs.factors.items() if values.dtype == dtype}
        assert found == names
    assert all(values.shape == (48,) for values in dogs.factors.values())


def test_captions_say_what_the_factors_say(dogs):
    assert caption("golden", "floppy", "grass") == "a golden dog with floppy ears on grass"
    for text, (coat, ears, ground) in zip(dogs.captions, named(dogs), strict=True):
        assert text == f"a {coat} dog with {ears} ears {PLACES[ground]}"


def test_pictures_show_what_their_factors_say(dogs):
    """Drawn one by one from the factors, they are the same pictures."""
    tables = {"coat": COATS, "ears": EARS, "ground": GROUNDS, "pose": POSES}
    for i in range(6):
        dog = synthetic_dogs._random_dog("train", 0, i)  # it alone knows the details
        factors = {name: values[i].item() for name, values in dogs.factors.items()}
        factors |= {name: names[factors[name]] for name, names in tables.items()}
        assert factors == pytest.approx({k: v for k, v in dog._asdict().items() if k != "details"})
        assert torch.equal(draw_dog(**dog._asdict(), resolution=64), dogs.images[i])


def test_every_48_dogs_show_every_combination_once_in_an_order_of_their_own(undrawn):
    many = load_synthetic_dogs(480, 16)
    blocks = [named(many[start : start + 48]) for start in range(0, 480, 48)]
    assert all(sorted(block) == sorted(COMBINATIONS) for block in blocks)
    assert len({tuple(block) for block in blocks}) == 10 and COMBINATIONS not in blocks


def test_the_other_factors_are_spread_evenly_and_independent_of_the_coat(undrawn):
    factors = load_synthetic_dogs(480, 16).factors
    poses = Counter(factors["pose"].tolist())
    assert len(poses) == len(POSES) and all(120 < count < 200 for count in poses.values())
    for name in ("mirrored", "tongue"):
        assert 200 < factors[name].sum() < 280
    for name, (low, high) in RANGES.items():
        share = (factors[name] - low) / (high - low)
        assert 0 <= share.min() < 0.05 and 0.95 < share.max() <= 1
        assert 0.45 < share.mean() < 0.55
    columns = torch.stack([values.float() for values in factors.values()])
    assert (torch.corrcoef(columns) - torch.eye(len(columns))).abs().max() < 0.15


# --- reproducible ---


def test_a_dog_depends_on_its_place_and_seed_alone(dogs):
    random.seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    again = load_synthetic_dogs(3, 64)
    assert torch.equal(again.images, dogs.images[:3]) and again.captions == dogs.captions[:3]
    for name, values in again.factors.items():
        assert torch.equal(values, dogs.factors[name][:3])

    # and draws from no global generator
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_the_first_dogs_stay_the_same_from_version_to_version(dogs):
    assert dogs.captions[:3] == (
        "a golden dog with pointy ears on grass",
        "a black dog with floppy ears on grass",
        "a black dog with floppy ears on snow",
    )
    sizes = torch.tensor([0.7945, 0.7672, 0.9089])
    torch.testing.assert_close(dogs.factors["size"][:3], sizes, rtol=0, atol=1e-4)


def test_splits_and_seeds_share_no_dog(undrawn):
    sets = [load_synthetic_dogs(96, 16, split) for split in SPLITS]
    sets.append(load_synthetic_dogs(96, 16, seed=1))
    assert len({part.captions for part in sets}) == 4
    assert len(torch.cat([part.factors["size"] for part in sets]).unique()) == 4 * 96


@pytest.mark.parametrize(("resolution", "common"), [(16, 16), (128, 64)])
def test_a_dog_is_the_same_at_every_resolution(dogs, resolution, common):
    other = load_synthetic_dogs(12, resolution)
    assert other.captions == dogs.captions[:12]
    here, there = (
        F.interpolate(part.pixels(), size=common, mode="area") for part in (dogs[:12], other)
    )
    assert (here - there).abs().mean((1, 2, 3)).max() < 0.02
    assert (here.roll(1, 0) - there).abs().mean((1, 2, 3)).min() > 0.05  # another dog is far away


# --- parts of a set ---


@pytest.mark.parametrize(
    "index", [slice(5, 40, 7), torch.tensor([9, 2, 2, 47]), torch.arange(48) % 5 == 1]
)
def test_indexing_keeps_together_what_belongs_together(dogs, index):
    part = dogs[index]
    positions = torch.arange(48)[index].tolist()
    assert isinstance(part, SyntheticDogs) and len(part) == len(positions) == len(part.captions)
    for row, position in enumerate(positions):
        assert torch.equal(part.images[row], dogs.images[position])
        assert part.captions[row] == dogs.captions[position]
        assert part.labels[row] == dogs.labels[position]
        for name, values in part.factors.items():
            assert values[row] == dogs.factors[name][position]


def test_held_out_dogs_take_their_captions_along(dogs):
    for part, size in zip(dogs.split(20, seed=3), (28, 20), strict=True):
        assert len(part) == size == len(part.captions)
        assert part.captions == tuple(caption(*names) for names in named(part))
        assert torch.equal(part.labels, part.factors["coat"])

    red = dogs.factors["coat"] == COATS.index("red")
    snow = dogs.factors["ground"] == GROUNDS.index("snow")
    kept = dogs[~(red & snow)]
    assert len(kept) == 46
    assert not any("red" in text and "snow" in text for text in kept.captions)


@pytest.mark.parametrize("pose", POSES)
def test_all_dogs_can_have_one_pose_and_keep_all_else(dogs, pose):
    same = load_synthetic_dogs(9, 64, pose=pose)
    mixed = dogs[:9]
    had = mixed.factors["pose"] == POSES.index(pose)
    assert (same.factors["pose"] == POSES.index(pose)).all() and same.captions == mixed.captions
    for name, values in mixed.factors.items():
        assert name == "pose" or torch.equal(same.factors[name], values)
    equal = [torch.equal(*pair) for pair in zip(same.images, mixed.images, strict=True)]
    assert equal == had.tolist() and had.any()


# --- what cannot be drawn ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "val"}, ("'val'", *SPLITS)),
        ({"pose": "flying"}, ("'flying'", *POSES)),
        ({"count": 0}, ("1 or more",)),
        ({"count": 2.5}, ("whole number",)),
        ({"count": "3"}, ("whole number",)),
        ({"resolution": 8}, ("16 or more",)),
        ({"resolution": 64.5}, ("whole number",)),
    ],
)
def test_an_impossible_set_is_one_sentence(options, words):
    with pytest.raises(CourseError) as error:
        load_synthetic_dogs(**{"count": 2, **options})
    ((name, value),) = options.items()
    one_sentence(error, f"{name} is {value!r}", *words)


def test_an_impossible_caption_is_one_sentence():
    with pytest.raises(CourseError) as error:
        caption("pink", "floppy", "grass")
    one_sentence(error, "coat is 'pink'", *COATS)
