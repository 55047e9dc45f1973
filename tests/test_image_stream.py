"""Images that stay in their files give what the same images in memory give."""

import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import CourseError, image_files, image_stream
from helpers.checkpoints import fingerprint
from helpers.data import Batches, ImageSet, load_image_folder, random_crop, random_flip
from helpers.image_stream import ImageFiles
from helpers.training import evaluate, fit
from tests.small_data import one_sentence, write_photos
from tests.tools.common import ROOT


@pytest.fixture
def both(tmp_path, monkeypatch) -> tuple[ImageSet, ImageSet]:
    """The same 13 photos of 8×8 in memory, and in their files with numbers for labels."""
    write_photos(tmp_path, 13)
    memory = load_image_folder(tmp_path, 8)
    monkeypatch.setattr(image_files, "MEMORY_LIMIT", 13 * 3 * 8 * 8 - 1)
    files = load_image_folder(tmp_path, 8)
    return tuple(ImageSet(part.images, torch.arange(13), part.source, part.names) for part in (memory, files))


@pytest.fixture(params=[0, 2])
def workers(request, monkeypatch) -> int:
    monkeypatch.setattr(image_stream, "WORKERS", request.param)
    return request.param


def crop_and_flip(images, generator):
    return random_flip(random_crop(images, generator, 5), generator)


def equal(first, second) -> bool:
    pairs = list(zip(first, second, strict=True))
    return len(pairs) > 0 and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.images.dtype == b.images.dtype
        for a, b in pairs
    )


def test_a_set_stays_in_its_files_where_its_pixels_are_more_than_the_limit(both, tmp_path, monkeypatch):
    memory, files = both
    assert isinstance(memory.images, torch.Tensor) and isinstance(files.images, ImageFiles)
    assert memory.source == files.source and memory.names == files.names
    monkeypatch.setattr(image_files, "MEMORY_LIMIT", 13 * 3 * 8 * 8)
    assert isinstance(load_image_folder(tmp_path, 8).images, torch.Tensor)


def test_files_answer_like_a_tensor(both):
    memory, files = both[0].images, both[1].images
    assert len(files) == 13 and files.shape == memory.shape and files.shape[2:].numel() == 64
    for index in (0, 5, -1, torch.tensor(3), np.int64(7)):
        assert torch.equal(files[index], memory[index]) and files[index].dtype == torch.uint8
    mask = torch.arange(13) % 3 == 1
    for index in (slice(2, 9, 3), slice(0, 0), slice(None), torch.tensor([5, 1, 1]), mask, [4, 2]):
        chosen = files[index]
        assert isinstance(chosen, ImageFiles) and torch.equal(chosen.to("cpu"), memory[index])
        assert chosen.shape == memory[index].shape
    assert torch.equal(files[3:][torch.tensor([2, 0])].to("cpu"), memory[[5, 3]])
    for index in (13, -14):
        with pytest.raises(IndexError):
            files[index]
    assert torch.equal(pickle.loads(pickle.dumps(files)).to("cpu"), memory)


def test_choosing_reads_nothing(both, tmp_path):
    files = both[1]
    shutil.rmtree(tmp_path / "more")
    assert len(files[3:]) == 10 and len(files.split(4)[1]) == 4


def test_image_sets_of_both_kinds_do_the_same(both):
    memory, files = both
    assert torch.equal(memory.pixels(), files.pixels()) and files.pixels().dtype == torch.float32
    for a, b in zip(memory.split(4, seed=2), files.split(4, seed=2)):
        assert a.names == b.names and torch.equal(a.labels, b.labels) and torch.equal(a.pixels(), b.pixels())


@pytest.mark.parametrize("augment", [None, crop_and_flip])
def test_batches_are_bit_identical_in_every_epoch_from_every_start_for_every_process(both, workers, augment):
    memory, files = (Batches(data, 4, seed=7, augment=augment) for data in both)
    assert len(files) == len(memory) == 3
    state = torch.get_rng_state()
    for options in ((0,), (1,), (1, 2), (5, 1, (0, 2)), (5, 0, (1, 2))):
        assert equal(files.epoch(*options), memory.epoch(*options)), options
    assert list(files.epoch(0, 3)) == []
    assert torch.equal(torch.get_rng_state(), state)  # dropout draws from there
    assert equal(files.epoch(2), memory.epoch(2))


def test_the_augmentation_counts(both, workers):
    plain, augmented = (next(Batches(both[1], 4, augment=augment).epoch(0)) for augment in (None, crop_and_flip))
    assert plain.images.shape == (4, 3, 8, 8) and augmented.images.shape == (4, 3, 5, 5)


def test_an_epoch_may_break_off_and_two_may_go_side_by_side(both, workers):
    memory, files = (Batches(data, 3) for data in both)
    assert equal([next(files.epoch(0))], [next(memory.epoch(0))])
    first = next(files.epoch(1))
    assert torch.equal(first.images, next(memory.epoch(1)).images)
    pairs = list(zip(files.epoch(2), files.epoch(3)))
    assert equal([a for a, _ in pairs], memory.epoch(2)) and equal([b for _, b in pairs], memory.epoch(3))


def test_workers_stay_from_epoch_to_epoch_and_leave_with_the_batches(both, monkeypatch):
    monkeypatch.setattr(image_stream, "WORKERS", 2)
    batches, before = Batches(both[1], 4), set(multiprocessing.active_children())
    seen = []
    for epoch in range(2):
        list(batches.epoch(epoch))
        seen.append({child.pid for child in set(multiprocessing.active_children()) - before})
    assert len(seen[0]) == 2 and seen[0] == seen[1]
    del batches
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_after_the_death_of_a_worker_the_next_epoch_has_new_ones(both, monkeypatch):
    monkeypatch.setattr(image_stream, "WORKERS", 2)
    before = set(multiprocessing.active_children())
    batches, whole = Batches(both[1], 1), Batches(both[0], 1)
    started = batches.epoch(0)
    next(started)
    child, _ = set(multiprocessing.active_children()) - before
    with pytest.raises((RuntimeError, OSError, EOFError)):
        os.kill(child.pid, signal.SIGKILL)  # torch hears of it at once, or when it asks for a batch
        list(started)
    started.close()
    assert equal(batches.epoch(1), whole.epoch(1))


@pytest.mark.parametrize("unfinished", [True, False])
def test_forgotten_batches_end_their_workers_soon_and_silently(both, monkeypatch, capfd, unfinished):
    monkeypatch.setattr(image_stream, "WORKERS", 2)
    before = set(multiprocessing.active_children())
    gc.collect()
    gc.disable()
    try:
        circle = [Batches(both[1], 4)]  # only the garbage collector frees what refers to itself
        circle += [circle[0].epoch(0), circle]
        next(circle[1]) if unfinished else list(circle[1])
        del circle
        assert len(set(multiprocessing.active_children()) - before) == 2
        assert equal(Batches(both[1], 4).epoch(0), Batches(both[0], 4).epoch(0))  # workers that inherit the garbage
    finally:
        gc.enable()
    start = time.monotonic()
    gc.collect()
    assert time.monotonic() - start < 4  # torch alone takes 5 s for each
    assert set(multiprocessing.active_children()) <= before and capfd.readouterr().err == ""


def test_little_shared_memory_means_fewer_workers(monkeypatch):
    monkeypatch.setattr(image_stream, "WORKERS", 4)
    monkeypatch.setattr(image_stream.Path, "is_dir", lambda path: True)
    batch, docker = 64 * 3 * 256**2, shutil._ntuple_diskusage(64 * 2**20, 0, 64 * 2**20)
    monkeypatch.setattr(image_stream.shutil, "disk_usage", lambda path: docker)
    assert [image_stream._workers(n) for n in (batch, 4 * batch, 1000)] == [1, 0, 4]
    monkeypatch.setattr(image_stream.Path, "is_dir", lambda path: False)
    assert image_stream._workers(batch) == 4


def test_a_file_that_breaks_after_the_scan_is_one_sentence_with_its_name(both, workers, tmp_path):
    (tmp_path / "more" / "003.png").write_bytes(b"no more")
    readings = [lambda: list(Batches(both[1], 13).epoch(0)), lambda: both[1].pixels()]
    readings += [lambda: both[1].images[both[1].names.index("more/003.png")]]
    for read in readings:
        with pytest.raises(CourseError) as error:
            read()
        one_sentence(error, "more/003.png", "no known image format")
        assert str(tmp_path) not in str(error.value)
    (tmp_path / "more" / "003.png").unlink()
    with pytest.raises(CourseError) as error:
        list(Batches(both[1], 13).epoch(0))
    one_sentence(error, "more/003.png", "No such file")


def test_the_fingerprint_knows_the_content_and_not_the_place(both, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("else") / "where"
    shutil.copytree(tmp_path, elsewhere)
    same, images = load_image_folder(elsewhere, 8).images, both[1].images
    assert isinstance(same, ImageFiles) and fingerprint(same) == fingerprint(images)
    Image.new("RGB", (9, 9)).save(elsewhere / "000.png")
    others = [load_image_folder(elsewhere, 8).images, load_image_folder(tmp_path, 9).images, images[1:], images[[1, 0]]]
    assert len({fingerprint(part) for part in [images, *others]}) == 5


def brightness(model, batch, generator):
    noise = torch.rand(batch.images.shape, generator=generator) / 10
    return {"loss": (model(torch.nn.functional.dropout(batch.images, 0.2) + noise) - batch.images).pow(2).mean((1, 2, 3))}


def test_training_and_evaluation_are_the_same_call_with_the_same_numbers(both, workers):
    results = []
    for data in both:
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 3, 3, padding=1)
        options = {"epochs": 2, "batch_size": 4, "precision": "no", "augment": partial(random_crop, size=6)}
        history = fit(model, brightness, data[:9], validation=data[9:], **options)
        results.append((history["loss"], history["val_loss"], evaluate(model, brightness, data)))
    assert results[0] == results[1]


SCRIPT = """
    import gc, os, signal, sys
    from helpers import image_files
    from helpers.data import Batches, load_image_folder
    print("torchvision" in sys.modules)
    image_files.MEMORY_LIMIT = 0
    data = load_image_folder(sys.argv[1], 8)
    from helpers import image_stream
    image_stream.WORKERS = 2
    gc.disable()
    circle = [Batches(data, 2)]
    circle += [circle[0].epoch(0), circle]
    next(circle[1])
    del circle  # garbage with two workers
    read = image_stream._Stacks.__getitem__
    image_stream._Stacks.__getitem__ = lambda *asked: (gc.collect(), read(*asked))[1]
    batches = Batches(data, 2).epoch(0)
    next(batches)
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    os.killpg(0, signal.SIGINT)  # what a terminal does on ctrl-C
    print(len(list(batches)), len(heard))
    """


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no process groups")
def test_workers_leave_ctrl_c_and_garbage_to_the_training_and_small_folders_need_no_torchvision(tmp_path):
    write_photos(tmp_path, 41)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=100, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("False\n19 1\n", "", 0)
