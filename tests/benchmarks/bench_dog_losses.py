"""One start, several losses: what each does to PSNR and to sharpness.

All go on from the course's dogs.  Every run has one core to itself.  About 10 minutes on two cores.
"""

from helpers import CourseError
from helpers.env import ROOT, budget
from helpers.models.perceptual import load_lpips
from tests.benchmarks.common import figures_of, publish, take_shared
from tests.benchmarks.parallel import side_by_side

NEEDS = ("checkpoints/dogs_vae",)
WRITES = ("results/dog_losses", "checkpoints/dogs_vae_adversarial")

RESOLUTION = 64
MINUTES = budget(quick=0.02, cpu=4.0, gpu=4.0)
BEGIN = ROOT / "data" / "checkpoints" / "dogs_vae.safetensors"
LOSSES = {
    "calibrated Gaussian": ["--loss", "calibrated"],
    "squared error, σ = 0.05": ["--loss", "mse"],
    # ten times the next one's terms: all but its discriminator
    "absolute error": ["--loss", "l1", "--beta", "1e-5"],
    "absolute error and discriminator": [
        "--adversarial",
        "--no-perceptual",
        "--export",
        "dogs_vae_adversarial",
    ],
}
PERCEPTUAL = {"absolute error, VGG16 and discriminator": ["--adversarial"]}
NO_VGG16 = "VGG16's weights could not be downloaded where this was measured: "
NO_VGG16 += "the discriminator worked alone."


def train(words: list[str]) -> dict:
    """The figures of one run of the command line."""
    shared = ["--resolution", RESOLUTION, "--minutes", MINUTES, "--lr", 2e-4, "--init-from", BEGIN]
    shared += ["--ema", 0]
    run = "bench_dog_losses" + "".join(word.replace("--", "-") for word in words)
    return figures_of(run, shared + words)


def main() -> None:
    wanted = dict(LOSSES)
    note = ""
    try:
        load_lpips()
        wanted |= PERCEPTUAL
    except CourseError:
        note = NO_VGG16
    rows = dict(zip(wanted, side_by_side(train, list(wanted.values())), strict=True))
    source, on = take_shared(rows.values(), "source", "on")
    values = {"minutes": MINUTES, "on": on, "resolution": RESOLUTION, "note": note, "rows": rows}
    publish("dog_losses", values, seeds=[0], data=source)


if __name__ == "__main__":
    main()
