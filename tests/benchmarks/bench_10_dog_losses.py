"""One start, several losses: what each does to PSNR and to sharpness.  After bench 8; about 45 minutes."""

from helpers import CourseError, train_dogs
from helpers.adversarial import load_perceptual_distance
from helpers.budget import ROOT, budget
from helpers.results import save_result

RESOLUTION, MINUTES = 64, budget(quick=0.02, cpu=8.0, gpu=8.0)
START = ROOT / "data" / "checkpoints" / "dogs_vae.safetensors"
LOSSES = {
    "calibrated Gaussian": ["--loss", "calibrated"],
    "squared error, σ = 0.05": ["--loss", "mse"],
    "absolute error": ["--loss", "l1"],
    "absolute error and discriminator": ["--adversarial", "--no-perceptual", "--export", "dogs_vae_judged"],
}
PERCEPTUAL = {"absolute error, VGG16 and discriminator": ["--adversarial"]}


def main() -> None:
    rows, wanted, note = {}, dict(LOSSES), ""
    try:
        load_perceptual_distance()
        wanted |= PERCEPTUAL
    except CourseError:
        note = "VGG16's weights could not be downloaded where this was measured: the discriminator worked alone."
    for number, (name, words) in enumerate(wanted.items()):
        common = ["--resolution", RESOLUTION, "--minutes", MINUTES, "--lr", 2e-4, "--start", START]
        figures = train_dogs.main([*map(str, common), *words, "--run", f"bench-losses-{number}"])
        rows[name] = {key: value for key, value in figures.items() if key != "source"}
    values = {"minutes": MINUTES, "resolution": RESOLUTION, "note": note, "rows": rows}
    save_result("dog_losses", values, seeds=[0], data=figures["source"])


if __name__ == "__main__":
    main()
