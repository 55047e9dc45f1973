"""A filmstrip of training: the same few images, reconstructed after every epoch."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.data.image_set import ImageSet
from helpers.env import check_name, runs_dir
from helpers.metrics.images import psnr, reconstruct
from helpers.training.fingerprint import fingerprint_of
from helpers.training.pictures import write_picture


class Filmstrip:
    """A callback that draws how well the same few images come back after every epoch.

    `fit(callback=Filmstrip("dogs", images))` saves a picture, the originals above their
    reconstructions, and adds their mean PSNR to the row.  The pictures are files, so they outlive a
    killed run: $COURSE_RUNS/<run>/filmstrip/<fingerprint of the images>/0001.png, 0002.png …
    Those of an earlier run of that name with the same images are removed when one starts afresh.
    """

    originals: torch.Tensor | None = None  # (count, 3, H, W); none of pictures that are invented

    def __init__(self, run: str, images: ImageSet):
        check_name("run", run)
        self.originals = images.pixels()
        self.folder = runs_dir() / run / "filmstrip" / fingerprint_of(self.originals)
        self.images = images
        self.count = len(images)

    def __call__(self, model, row: dict) -> None:
        decoded = reconstruct(model, self.images)
        row["psnr"] = psnr(decoded, self.originals).mean().item()
        self.save(decoded, row["epoch"])

    def save(self, images: torch.Tensor, epoch: int) -> None:
        """Write the images (count, 3, H, W) in [0, 1] of one epoch.

        Those of epoch 1 take the place of all earlier ones.
        """
        if epoch == 1:
            for old in self.folder.glob("*.png"):
                old.unlink(missing_ok=True)
        rows = [images] if self.originals is None else [self.originals, images]
        strips = [torch.cat(list(row), dim=2) for row in rows]  # (3, H, count·W) each
        write_picture(torch.cat(strips, dim=1), self.folder / f"{epoch:04d}.png")

    def frames(self) -> dict[int, torch.Tensor]:
        """{epoch: the images after it, (count, 3, H, W) in [0, 1]}, in the order of the epochs."""
        paths = {int(path.stem): path for path in self.folder.glob("*.png")}
        return {epoch: self._read(paths[epoch]) for epoch in sorted(paths)}

    def _read(self, path: Path) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(Image.open(path)))  # (rows·H, count·W, 3)
        strip = pixels.movedim(2, 0).float() / 255  # (3, rows·H, count·W)
        if self.originals is not None:
            strip = strip[:, -self.originals.shape[2] :]
        return torch.stack(strip.chunk(self.count, dim=2))
