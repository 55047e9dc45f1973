"""Image sets: parts of them, pixels, and the split into two."""

import pytest
import torch

from helpers import CourseError
from helpers.data.image_set import ImageSet
from tests.data.small_data import numbered, one_sentence


def test_slices_masks_and_positions():
    some = numbered(10)
    assert some[2:4].names == ("2", "3") and some[2:4].labels.tolist() == [2, 3]
    assert some[some.labels > 7].names == ("8", "9")
    assert some[torch.tensor([5, 1])].images[:, 0, 0, 0].tolist() == [5, 1]

    without = ImageSet(some.images, None, "x")[:3]
    assert len(without) == 3 and without.labels is None and without.names == ()
    assert without.tensors().keys() == {"images"} and some.tensors().keys() == {"images", "labels"}


def test_pixels_are_between_0_and_1():
    stored = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    pixels = ImageSet(stored, None, "x").pixels()
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels.flatten(), torch.tensor([0, 0.2, 1]))


def test_a_split_is_deterministic_disjoint_and_keeps_together_what_belongs_together():
    rest, held = numbered(50).split(20)
    assert (len(rest), len(held)) == (30, 20)
    assert sorted(rest.labels.tolist() + held.labels.tolist()) == list(range(50))
    for part in (rest, held):
        values = part.images[:, 0, 0, 0].tolist()
        assert values == part.labels.tolist() == [int(name) for name in part.names]
        assert part.source == "numbered"

    assert torch.equal(numbered(50).split(20)[1].labels, held.labels)
    assert not torch.equal(numbered(50).split(20, seed=1)[1].labels, held.labels)
    assert held.labels.tolist() not in (list(range(20)), list(range(30, 50)))


@pytest.mark.parametrize("size", [0, 10, -1])
def test_an_impossible_split_is_one_sentence(size):
    with pytest.raises(CourseError) as error:
        numbered(10).split(size)
    one_sentence(error, f"{size} of 10")
