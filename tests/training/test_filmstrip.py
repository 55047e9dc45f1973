"""The filmstrip: a picture per epoch that outlives a killed run, and a PSNR in every row."""

import csv
from functools import partial

import pytest
import torch
from PIL import Image

from helpers.data.image_set import ImageSet
from helpers.metrics.images import psnr, reconstruct
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.training.filmstrip import Filmstrip
from helpers.training.loop import fit


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def photos(count: int, seed: int = 0, height: int = 8, width: int = 12) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)
    return ImageSet(images, None, "noise")


def model() -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(VAEConfig((8, 8), latent_channels=2, blocks=1, groups=2))


class Painter(ConvVAE):
    """Decodes nothing but its `colour`, in [-1, 1]."""

    colour = 0.0

    def decode(self, z):
        return torch.full((len(z), 3, 8, 12), self.colour)


train = partial(fit, loss=image_loss, train=photos(16), batch_size=8, precision="no", run="dogs")


def test_the_psnr_of_every_epoch_is_in_the_history_and_its_file(runs):
    dogs, trained = photos(3, seed=1), model()
    history = train(trained, epochs=2, callback=Filmstrip("dogs", dogs))
    assert len(set(history["psnr"])) == 2
    assert history["psnr"][-1] == pytest.approx(psnr(reconstruct(trained, dogs), dogs.pixels()).mean().item(), rel=1e-5)
    (file,) = (runs / "dogs").glob("*/history.csv")
    assert [float(row["psnr"]) for row in csv.DictReader(file.open())] == history["psnr"]


def test_frames_come_back_in_order_with_every_image(runs):
    dogs, trained = photos(3, seed=1), model()
    train(trained, epochs=2, callback=Filmstrip("dogs", dogs))
    frames = Filmstrip("dogs", dogs).frames()  # in another process, say
    assert list(frames) == [1, 2] and {frame.shape for frame in frames.values()} == {(3, 3, 8, 12)}
    torch.testing.assert_close(frames[2], reconstruct(trained, dogs), rtol=0, atol=0.5 / 255 + 1e-6)
    assert not torch.equal(frames[1], frames[2])


def test_a_resumed_run_adds_frames_and_one_that_starts_afresh_removes_them():
    dogs, painter = photos(2, seed=1), Painter(VAEConfig((8, 8), groups=2))
    strip = Filmstrip("dogs", dogs)
    for epoch in (1, 2, 3):
        strip(painter, {"epoch": epoch})
    painter.colour = 0.6
    for epoch in (3, 10, 10_000):  # a kill before the checkpoint repeats an epoch
        strip(painter, {"epoch": epoch})
    assert {epoch: round(float(frame.mean()), 2) for epoch, frame in strip.frames().items()} == {
        1: 0.5, 2: 0.5, 3: 0.8, 10: 0.8, 10_000: 0.8
    }  # fmt: skip
    assert list(strip.frames()) == [1, 2, 3, 10, 10_000]
    strip(painter, {"epoch": 1})
    assert list(strip.frames()) == [1]


def test_other_dogs_and_other_runs_have_strips_of_their_own():
    painter = Painter(VAEConfig((8, 8), groups=2))
    one, other, elsewhere = Filmstrip("dogs", photos(2)), Filmstrip("dogs", photos(5)), Filmstrip("cats", photos(2))
    one(painter, {"epoch": 1})
    other(painter, {"epoch": 1})
    assert one.frames()[1].shape == (2, 3, 8, 12) and other.frames()[1].shape == (5, 3, 8, 12)
    assert elsewhere.frames() == {}


def test_a_kill_while_a_frame_is_written_leaves_the_earlier_ones(monkeypatch):
    strip, painter = Filmstrip("dogs", photos(2)), Painter(VAEConfig((8, 8), groups=2))
    strip(painter, {"epoch": 1})

    def half(image, file, **options):
        file.write_bytes(b"\x89PNG half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", half)
        with pytest.raises(KeyboardInterrupt):
            strip(painter, {"epoch": 2})
    assert list(strip.frames()) == [1]
    strip(painter, {"epoch": 2})
    assert list(strip.frames()) == [1, 2] and len(list(strip.folder.iterdir())) == 2
