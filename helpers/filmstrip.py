"""A filmstrip of training: the same few images, reconstructed after every epoch."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.budget import runs_dir
from helpers.checkpoints import fingerprint
from helpers.data import ImageSet
from helpers.image_metrics import psnr, reconstruct


class Filmstrip:
    """`fit(watch=Filmstrip("dogs", dogs))` saves a picture of `dogs` after every epoch and adds their PSNR to the row.

    The pictures are files, $COURSE_RUNS/<run>/filmstrip/<fingerprint of the dogs>/0001.png …, so they outlive a killed
    run.  Those of an earlier run of that name with the same dogs are removed when one starts afresh.
    """

    def __init__(self, run: str, dogs: ImageSet):
        self.folder, self.dogs = runs_dir() / run / "filmstrip" / fingerprint(dogs.pixels()), dogs
        self.count = len(dogs)

    def __call__(self, model, row: dict) -> None:
        decoded = reconstruct(model, self.dogs)
        row["psnr"] = psnr(decoded, self.dogs.pixels()).mean().item()
        self.save(decoded, row["epoch"])

    def save(self, images: torch.Tensor, epoch: int) -> None:
        """Write the images (count, 3, H, W) in [0, 1] of one epoch; those of epoch 1 take the place of all earlier ones."""
        strip = torch.cat(list(images), dim=2).mul(255).round().byte()  # (3, H, N·W)
        self.folder.mkdir(parents=True, exist_ok=True)
        if epoch == 1:
            for old in self.folder.iterdir():
                old.unlink()
        partial = self.folder / "frame.part"
        Image.fromarray(strip.movedim(0, 2).numpy()).save(partial, format="PNG")
        partial.replace(self.folder / f"{epoch:04d}.png")

    def frames(self) -> dict[int, torch.Tensor]:
        """{epoch: the images after it, (N, 3, H, W) in [0, 1]}, in the order of the epochs."""
        paths = {int(path.stem): path for path in self.folder.glob("*.png")}
        return {epoch: self._read(paths[epoch]) for epoch in sorted(paths)}

    def _read(self, path: Path) -> torch.Tensor:
        strip = torch.from_numpy(np.array(Image.open(path))).movedim(2, 0).float() / 255  # (3, H, N·W)
        return torch.stack(strip.chunk(self.count, dim=2))
