"""Images that stay in their files give what the same images in memory give."""

import multiprocessing
import os
import pickle
import shutil
import signal
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import CourseError
from helpers.data import image_folder, large_folder
from helpers.data.augment import crop_and_flip, random_crop
from helpers.data.image_folder import load_image_folder
from helpers.data.image_set import ImageSet
from helpers.data.large_folder import ImageFiles
from helpers.data.loader import Batches
from helpers.training.fingerprint import fingerprint_of
from helpers.training.loop import evaluate, fit
from tests.data.small_data import one_sentence, write_photos


@pytest.fixture
def both(tmp_path, monkeypatch) -> tuple[ImageSet, ImageSet]:
    """The same 13 photos of 8×8 in memory, and in their files, with numbers for labels."""
    write_photos(tmp_path, 13)
    memory = load_image_folder(tmp_path, 8)
    monkeypatch.setattr(image_folder, "MEMORY_LIMIT", 13 * 3 * 8 * 8 - 1)
    files = load_image_folder(tmp_path, 8)
    labels = torch.arange(13)
    return tuple(ImageSet(part.images, labels, part.source, part.names) for part in (memory, files))


@pytest.fixture(params=[0, 2])
def workers(request, monkeypatch) -> int:
    monkeypatch.setattr(large_folder, "WORKERS", request.param)
    return request.param


@pytest.fixture
def two_workers(monkeypatch):
    """A function that returns the worker processes at this moment."""
    monkeypatch.setattr(large_folder, "WORKERS", 2)
    before = set(multiprocessing.active_children())
    return lambda: set(multiprocessing.active_children()) - before


def equal(first, second) -> bool:
    pairs = list(zip(first, second, strict=True))
    assert pairs
    return all(
        torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype
        for a, b in pairs
        for name in ("images", "labels")
    )


def test_a_set_stays_in_its_files_where_its_pixels_are_more_than_the_limit(
    both, tmp_path, monkeypatch
):
    memory, files = both
    assert isinstance(memory.images, torch.Tensor) and isinstance(files.images, ImageFiles)
    assert memory.source == files.source and memory.names == files.names
    monkeypatch.setattr(image_folder, "MEMORY_LIMIT", 13 * 3 * 8 * 8)
    assert isinstance(load_image_folder(tmp_path, 8).images, torch.Tensor)


def test_files_answer_like_a_tensor(both):
    memory = both[0].images
    files = both[1].images
    assert len(files) == 13 and files.shape == memory.shape
    for index in (0, 5, -1, torch.tensor(3), np.int64(7)):
        assert torch.equal(files[index], memory[index]) and files[index].dtype == torch.uint8

    mask = torch.arange(13) % 3 == 1
    for index in (slice(2, 9, 3), slice(None), torch.tensor([5, 1, 1]), mask, [4, 2]):
        chosen = files[index]
        assert isinstance(chosen, ImageFiles) and chosen.shape == memory[index].shape
        assert torch.equal(chosen.to("cpu"), memory[index])
    assert torch.equal(files[3:][torch.tensor([2, 0])].to("cpu"), memory[[5, 3]])

    for index in (13, -14):
        with pytest.raises(IndexError):
            files[index]
    assert torch.equal(pickle.loads(pickle.dumps(files)).to("cpu"), memory)


def test_image_sets_of_both_kinds_do_the_same(both, tmp_path):
    memory, files = both
    assert torch.equal(memory.pixels(), files.pixels()) and files.pixels().dtype == torch.float32
    for a, b in zip(memory.split(4, seed=2), files.split(4, seed=2)):
        assert a.names == b.names and torch.equal(a.labels, b.labels)
        assert torch.equal(a.pixels(), b.pixels())

    shutil.rmtree(tmp_path / "more")
    assert len(files[3:]) == 10 and len(files.split(4)[1]) == 4  # choosing reads nothing


@pytest.mark.parametrize("augment", [None, partial(crop_and_flip, size=5)], ids=["", "cropped"])
def test_batches_are_bit_identical_in_every_epoch_from_every_start_for_every_process(
    both, workers, augment
):
    memory, files = (Batches(data, 4, seed=7, augment=augment) for data in both)
    assert len(files) == len(memory) == 3
    state = torch.get_rng_state()
    for options in ((0,), (1, 2), (5, 1, (0, 2)), (5, 0, (1, 2))):
        assert equal(files.epoch(*options), memory.epoch(*options)), options
    assert list(files.epoch(0, 3)) == []
    assert torch.equal(torch.get_rng_state(), state)  # dropout draws from there


def test_an_epoch_may_break_off_and_two_may_go_side_by_side(both, two_workers):
    memory, files = (Batches(data, 3) for data in both)
    first = files.epoch(1)
    assert torch.equal(next(first)["images"], next(memory.epoch(1))["images"])
    assert len(two_workers()) == 2
    del first
    assert not two_workers()

    pairs = list(zip(files.epoch(2), files.epoch(3)))
    assert equal([a for a, _ in pairs], memory.epoch(2))
    assert equal([b for _, b in pairs], memory.epoch(3))
    assert not two_workers()


def test_a_file_that_breaks_after_the_scan_is_one_sentence_with_its_name(both, workers, tmp_path):
    files = both[1]
    before = set(multiprocessing.active_children())
    (tmp_path / "more" / "003.png").write_bytes(b"no more")
    readings = [
        lambda: list(Batches(files, 1).epoch(0)),
        lambda: files.pixels(),
        lambda: files.images[files.names.index("more/003.png")],
    ]
    for read in readings:
        with pytest.raises(CourseError) as error:
            read()
        one_sentence(error, "more/003.png", "no known image format")
        assert str(tmp_path) not in str(error.value)
        # a notebook keeps the error, and with it whatever its frames hold
        assert set(multiprocessing.active_children()) <= before


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way there")
def test_ctrl_c_is_for_the_process_that_trains(both, two_workers, monkeypatch):
    real = large_folder._start

    def start(loader):
        batches = real(loader)
        for worker in two_workers():  # in their first moment, when they know no handler yet
            os.kill(worker.pid, signal.SIGINT)
        return batches

    monkeypatch.setattr(large_folder, "_start", start)
    memory, files = (Batches(data, 1) for data in both)
    assert equal(files.epoch(0), memory.epoch(0))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])  # heard here again


def test_batches_take_no_shared_memory(both):
    """Docker gives 64 MB of it; tensors would pass through it, arrays do not."""
    stack = both[1].images._stack(both[1].images.files[:2])
    assert type(stack) is np.ndarray and stack.shape == (2, 3, 8, 8)


def test_the_fingerprint_knows_the_content_and_not_the_place(both, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("else") / "where"
    shutil.copytree(tmp_path, elsewhere)
    images = both[1].images
    same = load_image_folder(elsewhere, 8).images
    assert isinstance(same, ImageFiles) and fingerprint_of(same) == fingerprint_of(images)

    Image.new("RGB", (9, 9)).save(elsewhere / "000.png")
    changed = load_image_folder(elsewhere, 8).images
    larger = load_image_folder(tmp_path, 9).images
    others = [changed, larger, images[1:], images[[1, 0]]]
    assert len({fingerprint_of(part) for part in [images, *others]}) == 5


def brightness(model, batch, generator):
    images = batch["images"]
    noise = torch.rand(images.shape, generator=generator) / 10
    guess = model(torch.nn.functional.dropout(images, 0.2) + noise)
    return {"loss": (guess - images).pow(2).mean((1, 2, 3))}


def test_training_and_evaluation_give_the_same_numbers(both, two_workers):
    results = []
    for data in both:
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 3, 3, padding=1)
        options = {"epochs": 2, "batch_size": 4, "precision": "no"}
        options |= {"augment": partial(random_crop, size=6), "validation": data[9:]}
        history = fit(model, brightness, data[:9], **options)
        measured = evaluate(model, brightness, data)
        results.append((history["loss"], history["val_loss"], measured))
    assert results[0] == results[1] and not two_workers()
