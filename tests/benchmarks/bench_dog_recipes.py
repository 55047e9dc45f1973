"""Three recipes on the same dogs, the same core, the same minutes; three seeds.

Each has its own network, loss, learning rate and loop; 64 px, eight-fold reduction, 4 channels.
Every run has one core to itself.  About 30 minutes on two cores.
"""

from helpers.data.datasets import load_dogs
from helpers.env import budget
from helpers.metrics.images import BlockPCA, psnr, reconstruct
from helpers.metrics.latents import latent_statistics
from helpers.results import describe_device
from tests.benchmarks.common import SEEDS, over_seeds, publish, take_shared
from tests.benchmarks.course_recipes import course_model, train_ours
from tests.benchmarks.dog_recipes import RECIPES, measure_published, train_published
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/dog_recipes",)

RESOLUTION = 64
FACTOR = 8
MINUTES = budget(quick=0.02, cpu=5.0, gpu=5.0)


def train(job: tuple[str, int]) -> dict:
    """The figures of one recipe with one seed."""
    name, seed = job
    training = load_dogs(RESOLUTION, "train")
    test = load_dogs(RESOLUTION, "test")
    if name == "ours":
        model = course_model(seed, factor=FACTOR)
        model, images = train_ours(training, seed, model, minutes=MINUTES)
        decoded = reconstruct(model, test)
        latents = latent_statistics(model, test)
        posterior = {"kl": latents.kl.sum().item(), "noise": latents.noise.mean().item()}
    else:
        model, images = train_published(name, training, 60 * MINUTES, seed)
        decoded, posterior = measure_published(model, test)
    quality = psnr(decoded, test.pixels()).mean().item()
    found = {"psnr": quality, "images": images} | posterior
    shown = "  ".join(f"{key} {value:.4g}" for key, value in found.items())
    print(f"seed {seed}  {name:10}", shown, flush=True)
    return found | {"on": describe_device()}


def main() -> None:
    # in turn: a slow hour hits all of them
    jobs = [(name, seed) for seed in SEEDS for name in ("ours", *RECIPES)]
    found = dict(zip(jobs, side_by_side(train, jobs), strict=True))
    (on,) = take_shared(found.values(), "on")
    rows = {name: over_seeds([found[name, seed] for seed in SEEDS]) for name in ("ours", *RECIPES)}

    test = load_dogs(RESOLUTION, "test")
    linear = BlockPCA(load_dogs(RESOLUTION, "train"), FACTOR, 4).reconstruct(test.pixels())
    values = {
        "minutes": MINUTES,
        "on": on,
        "resolution": RESOLUTION,
        "factor": FACTOR,
        "block_pca_psnr": psnr(linear, test.pixels()).mean().item(),
        "rows": rows,
    }
    publish("dog_recipes", values, seeds=SEEDS, data=test.source)


if __name__ == "__main__":
    main()
