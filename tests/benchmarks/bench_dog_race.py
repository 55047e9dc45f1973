"""Who is ahead after how many minutes?  The deep network, the small one, each with a shortcut.

Every length is a training of its own, with its own learning-rate schedule; the contenders take
turns, and every run has one core to itself.  64 px, four-fold reduction, 4 channels, one seed.
About 90 minutes on two cores.
"""

from functools import partial

from torch import nn

from helpers.data.augment import random_flip
from helpers.data.datasets import load_dogs
from helpers.data.image_set import ImageSet
from helpers.env import budget
from helpers.metrics.images import measure_reconstructions
from helpers.models.conv_vae import image_loss
from helpers.results import describe_device
from helpers.rng import seed_everything
from helpers.training.loop import fit
from tests.benchmarks.common import publish, take_shared
from tests.benchmarks.course_recipes import SmallVAE, begun, course_model, photo_model
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/dog_race",)

RESOLUTION = 64
FACTOR = 4
MINUTES = budget(quick=(0.02,), cpu=(1.0, 2.0, 4.0, 8.0, 20.0), gpu=(1.0, 2.0, 4.0, 8.0, 20.0))
# learning rates: the best of 1.5, 3, 5 and 10 · 10⁻³ by validation PSNR after two minutes
LR = {"as it was": 3e-3, "small": 5e-3, "small, shortcut": 5e-3, "patches, shortcut": 3e-3}


def model_of(name: str, train: ImageSet) -> nn.Module:
    """A fresh contender."""
    if name == "patches, shortcut":
        return photo_model(0, train, FACTOR)
    if name == "as it was":
        return course_model(0, factor=FACTOR)
    seed_everything(0)
    small = SmallVAE(FACTOR, shortcut=name == "small, shortcut")
    return begun(small, train) if small.linear else small


def train(job: tuple[str, float]) -> dict:
    """The figures of one training."""
    name, minutes = job
    training = load_dogs(RESOLUTION, "train")
    test = load_dogs(RESOLUTION, "test")
    model = model_of(name, training)
    settings = {"batch_size": 8, "lr": LR[name], "ema": 0.999, "augment": random_flip}
    fit(model, partial(image_loss, beta=0.1), training, minutes=minutes, **settings)
    figures = measure_reconstructions(model, training, test)
    print(f"{name:20} {minutes:4g} minutes: {figures['psnr']:.2f} dB", flush=True)
    return {
        "name": name,
        "minutes": minutes,
        "weights": sum(weight.numel() for weight in model.parameters()),
        "psnr": figures["psnr"],
        "block_pca_psnr": figures["block_pca_psnr"],
        "on": describe_device(),
        "source": test.source,
    }


def main() -> None:
    rows = side_by_side(train, [(name, minutes) for minutes in MINUTES for name in LR])
    source, on, linear = take_shared(rows, "source", "on", "block_pca_psnr")
    values = {"on": on, "resolution": RESOLUTION, "factor": FACTOR, "block_pca_psnr": linear}
    publish("dog_race", values | {"rows": rows}, seeds=[0], data=source)


if __name__ == "__main__":
    main()
