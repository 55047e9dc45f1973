"""Batches for training, and chunks of everything in order."""

import pytest
import torch

from helpers import CourseError
from helpers.data.augment import random_flip
from helpers.data.image_set import ImageSet
from helpers.data.loader import Batches, in_chunks
from tests.data.small_data import numbered, one_sentence


def order(batches: Batches, epoch: int, **options) -> list[list[int]]:
    return [batch["labels"].tolist() for batch in batches.epoch(epoch, **options)]


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own():
    batches = Batches(numbered(12), 4, seed=3)
    first = order(batches, 0)
    assert len(batches) == 3 and [len(batch) for batch in first] == [4, 4, 4]
    assert sorted(sum(first, [])) == list(range(12)) and sum(first, []) != list(range(12))
    assert order(batches, 1) != first
    assert order(Batches(numbered(12), 4, seed=4), 0) != first

    torch.manual_seed(99)  # the global generator has no part in it
    assert order(Batches(numbered(12), 4, seed=3), 0) == first


def test_batches_pair_images_with_their_labels():
    for batch in Batches(numbered(12), 5).epoch(0):
        assert batch["images"].shape == (5, 1, 2, 3) and batch["images"].dtype == torch.float32
        torch.testing.assert_close(batch["images"][:, 0, 0, 0] * 255, batch["labels"].float())

    unlabelled = ImageSet(numbered(12).images, None, "x")
    assert next(Batches(unlabelled, 5).epoch(0)).keys() == {"images"}


def test_any_dict_of_equally_long_tensors_is_a_data_set():
    tokens = torch.arange(24).view(8, 3)
    data = {"latents": tokens / 10, "tokens": tokens, "pixels": tokens.to(torch.uint8)}
    for batch in Batches(data, 4).epoch(0):
        assert batch.keys() == data.keys() and batch["tokens"].dtype == torch.int64
        torch.testing.assert_close(batch["latents"] * 10, batch["tokens"].float())
        torch.testing.assert_close(batch["pixels"] * 255, batch["tokens"].float())

    for use in (lambda data: Batches(data, 2), lambda data: next(in_chunks(data))):
        with pytest.raises(CourseError) as error:
            use({"a": tokens, "b": tokens[1:]})
        one_sentence(error, "'a': 8", "'b': 7")


def test_the_last_smaller_batch_is_left_out():
    batches = Batches(numbered(11), 4)
    assert len(batches) == 2 and [len(batch) for batch in order(batches, 0)] == [4, 4]
    shown = {label for epoch in range(9) for batch in order(batches, epoch) for label in batch}
    assert len(shown) == 11  # it is not the same three every time


def test_an_epoch_can_be_entered_in_the_middle():
    def brighten(images, generator):
        return images + torch.rand(len(images), 1, 1, 1, generator=generator)

    batches = Batches(numbered(12), 4, augment=brighten)
    whole = list(batches.epoch(2))
    rest = list(batches.epoch(2, start=1))
    assert len(rest) == 2
    for batch, again in zip(whole[1:], rest, strict=True):
        assert torch.equal(batch["images"], again["images"])
        assert torch.equal(batch["labels"], again["labels"])
    assert list(batches.epoch(2, start=3)) == []


def test_processes_share_a_batch_row_by_row():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (12, 1, 4, 5), dtype=torch.uint8, generator=generator)
    batches = Batches(ImageSet(images, torch.arange(12), "noise"), 6, augment=random_flip)
    whole = list(batches.epoch(1))
    for count in (2, 3):
        parts = [list(batches.epoch(1, shard=(i, count))) for i in range(count)]
        for step, batch in enumerate(whole):
            for name in ("images", "labels"):
                assert torch.equal(torch.cat([part[step][name] for part in parts]), batch[name])


@pytest.mark.parametrize("size", [11, 0])
def test_an_impossible_batch_is_one_sentence(size):
    with pytest.raises(CourseError) as error:
        Batches(numbered(10), size)
    one_sentence(error, str(size), "10")


def test_chunks_are_all_rows_in_order():
    small = list(in_chunks(numbered(10)))
    assert len(small) == 1 and small[0]["labels"].tolist() == list(range(10))
    assert small[0]["images"].dtype == torch.float32

    rows = torch.arange(1003)
    assert [len(chunk["rows"]) for chunk in in_chunks({"rows": rows})] == [1000, 3]
    large = {"images": torch.zeros(5, 1, 600, 700), "rows": rows[:5]}  # 420,000 pixels each
    assert [chunk["rows"].tolist() for chunk in in_chunks(large)] == [[0, 1], [2, 3], [4]]
