"""Three recipes on the same dogs, the same core, the same minutes; three seeds.  About 30 minutes on two cores.

Each has its own network, loss, rate and loop; 64 px, eight-fold reduction, 4 channels.  Every run has one core to itself.
"""

from helpers.budget import budget
from helpers.data import load_dogs
from helpers.image_metrics import BlockPCA, latent_statistics, psnr, reconstruct
from helpers.results import describe_device, save_result
from tests.benchmarks.common import SEEDS, over_seeds, side_by_side, take_shared
from tests.benchmarks.dog_recipes import (
    RECIPES,
    course_model,
    measure_published,
    train_ours,
    train_published,
)

RESOLUTION, FACTOR, MINUTES = 64, 8, budget(quick=0.02, cpu=5.0, gpu=5.0)


def train(job: tuple[str, int]) -> dict:
    """The figures of one recipe with one seed."""
    name, seed = job
    training, test = load_dogs(RESOLUTION, "train"), load_dogs(RESOLUTION, "test")
    if name == "ours":
        model, images = train_ours(training, seed, course_model(seed, factor=FACTOR), minutes=MINUTES)
        decoded, latents = reconstruct(model, test), latent_statistics(model, test)
        posterior = {"kl": latents.kl.sum().item(), "noise": latents.noise.mean().item()}
    else:
        model, images = train_published(name, training, 60 * MINUTES, seed)
        decoded, posterior = measure_published(model, test)
    found = {"psnr": psnr(decoded, test.pixels()).mean().item(), "images": images} | posterior
    print(f"seed {seed}  {name:10}", "  ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)
    return found | {"on": describe_device()}


def main() -> None:
    jobs = [(name, seed) for seed in SEEDS for name in ("ours", *RECIPES)]  # in turn: a slow hour hits all of them
    found = dict(zip(jobs, side_by_side(train, jobs), strict=True))
    (on,) = take_shared(found.values(), "on")
    rows = {name: over_seeds([found[name, seed] for seed in SEEDS]) for name in ("ours", *RECIPES)}
    training, test = load_dogs(RESOLUTION, "train"), load_dogs(RESOLUTION, "test")
    linear = psnr(BlockPCA(training, FACTOR, 4).reconstruct(test.pixels()), test.pixels()).mean().item()
    values = {"minutes": MINUTES, "on": on, "resolution": RESOLUTION, "factor": FACTOR, "block_pca_psnr": linear}
    save_result("dog_recipes", values | {"rows": rows}, seeds=SEEDS, data=test.source)


if __name__ == "__main__":
    main()
