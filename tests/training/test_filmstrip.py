"""The filmstrip: a picture per epoch that outlives a killed run, and a PSNR in every row."""

import csv
import os

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import CourseError
from helpers.data.image_set import ImageSet
from helpers.metrics.images import psnr, reconstruct
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.training.filmstrip import Filmstrip
from helpers.training.loop import fit


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def photos(count: int, seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, 8, 12)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return ImageSet(images, None, "noise")


class Painter(ConvVAE):
    """Decodes nothing but its `colour`, in [0, 1]."""

    colour = 0.5

    def decode(self, z):
        return torch.full((len(z), 3, 8, 12), self.colour)


def test_a_training_leaves_a_picture_of_every_image_and_the_psnr_of_every_epoch(runs):
    images = photos(3, seed=1)
    torch.manual_seed(0)
    model = ConvVAE(VAEConfig((8, 8), latent_channels=2, blocks=1, groups=2))
    options = {"batch_size": 8, "precision": "no", "run": "dogs", "epochs": 2}
    history = fit(model, image_loss, photos(16), callback=Filmstrip("dogs", images), **options)

    decoded = reconstruct(model, images)
    last = psnr(decoded, images.pixels()).mean().item()
    assert history["psnr"][-1] == pytest.approx(last, rel=1e-5)
    assert len(set(history["psnr"])) == 2
    (file,) = (runs / "dogs").glob("*/history.csv")
    assert [float(row["psnr"]) for row in csv.DictReader(file.open())] == history["psnr"]

    frames = Filmstrip("dogs", images).frames()  # in another process, say
    assert list(frames) == [1, 2] and frames[1].shape == (3, 3, 8, 12)
    torch.testing.assert_close(frames[2], decoded, rtol=0, atol=0.5 / 255 + 1e-6)
    assert not torch.equal(frames[1], frames[2])
    picture = np.array(Image.open(Filmstrip("dogs", images).folder / "0002.png"))
    above = torch.from_numpy(picture[:8]).movedim(2, 0).chunk(3, dim=2)  # the originals
    assert picture.shape == (16, 36, 3) and torch.equal(torch.stack(above), images.images)


def test_a_resumed_run_adds_frames_and_one_that_starts_afresh_removes_them():
    painter = Painter(VAEConfig((8, 8), groups=2))
    strip = Filmstrip("dogs", photos(2, seed=1))
    for epoch in (1, 2, 3):
        strip(painter, {"epoch": epoch})
    painter.colour = 0.8
    for epoch in (3, 10, 10_000):  # a kill before the checkpoint repeats an epoch
        strip(painter, {"epoch": epoch})
    colours = {epoch: round(float(frame.mean()), 2) for epoch, frame in strip.frames().items()}
    assert colours == {1: 0.5, 2: 0.5, 3: 0.8, 10: 0.8, 10_000: 0.8}
    assert list(strip.frames()) == [1, 2, 3, 10, 10_000]
    strip(painter, {"epoch": 1})
    assert list(strip.frames()) == [1]


def test_other_images_and_other_runs_have_strips_of_their_own():
    painter = Painter(VAEConfig((8, 8), groups=2))
    one, other = Filmstrip("dogs", photos(2)), Filmstrip("dogs", photos(5))
    one(painter, {"epoch": 1})
    other(painter, {"epoch": 1})
    assert one.frames()[1].shape == (2, 3, 8, 12) and other.frames()[1].shape == (5, 3, 8, 12)
    assert Filmstrip("cats", photos(2)).frames() == {}


@pytest.mark.parametrize("run", ["../dogs", "", "/dogs", None])
def test_a_strip_stays_among_the_runs(run):
    with pytest.raises(CourseError, match="run is .* plain name"):
        Filmstrip(run, photos(2))


def test_a_kill_while_a_frame_is_written_leaves_the_earlier_ones(monkeypatch):
    strip, painter = Filmstrip("dogs", photos(2)), Painter(VAEConfig((8, 8), groups=2))
    strip(painter, {"epoch": 1})

    def stop(number):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            strip(painter, {"epoch": 2})
    assert list(strip.frames()) == [1]
    strip(painter, {"epoch": 2})
    assert list(strip.frames()) == [1, 2] and len(list(strip.folder.iterdir())) == 2
