"""One start, several losses: what each does to PSNR and to sharpness.  After bench 8; about 10 minutes on two cores.

Every run has one core to itself.
"""

from helpers import CourseError
from helpers.adversarial import load_perceptual_distance
from helpers.budget import ROOT, budget
from helpers.results import save_result
from tests.benchmarks.common import figures_of, side_by_side, take_shared

RESOLUTION, MINUTES = 64, budget(quick=0.02, cpu=4.0, gpu=4.0)
START = ROOT / "data" / "checkpoints" / "dogs_vae.safetensors"
LOSSES = {
    "calibrated Gaussian": ["--loss", "calibrated"],
    "squared error, σ = 0.05": ["--loss", "mse"],
    "absolute error": ["--loss", "l1", "--beta", "1e-5"],  # ten times the next one's terms: all but its discriminator
    "absolute error and discriminator": ["--adversarial", "--no-perceptual", "--export", "dogs_vae_judged"],
}
PERCEPTUAL = {"absolute error, VGG16 and discriminator": ["--adversarial"]}


def train(words: list[str]) -> dict:
    common = ["--resolution", RESOLUTION, "--minutes", MINUTES, "--lr", 2e-4, "--start", START]
    return figures_of("bench_10_dog_losses" + "".join(word.replace("--", "-") for word in words), common + words)


def main() -> None:
    wanted, note = dict(LOSSES), ""
    try:
        load_perceptual_distance()
        wanted |= PERCEPTUAL
    except CourseError:
        note = "VGG16's weights could not be downloaded where this was measured: the discriminator worked alone."
    rows = dict(zip(wanted, side_by_side(train, list(wanted.values())), strict=True))
    source, on = take_shared(rows.values(), "source", "on")
    values = {"minutes": MINUTES, "on": on, "resolution": RESOLUTION, "note": note, "rows": rows}
    save_result("dog_losses", values, seeds=[0], data=source)


if __name__ == "__main__":
    main()
