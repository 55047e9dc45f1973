"""Why a linear code is ahead, and what mends that: patches, and a linear shortcut; three seeds.

The same network but for the change, the same minutes, one core each.  About 30 minutes on two
cores.
"""

from functools import partial

from helpers.data.datasets import load_dogs
from helpers.env import budget
from helpers.metrics.images import measure_reconstructions
from helpers.models.conv_vae import image_loss
from helpers.results import describe_device
from helpers.training.loop import fit
from tests.benchmarks.common import SEEDS, over_seeds, publish, take_shared
from tests.benchmarks.course_recipes import counting_flip, photo_model
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/dog_cure",)

RESOLUTION = 64
FACTOR = 4
MINUTES = budget(quick=0.02, cpu=4.0, gpu=4.0)
SINGLE = {"channels": (16, 32, 64), "groups": 4, "patch": 1}  # pixels, as Stable Diffusion has it
CHANGES = {
    "single pixels": SINGLE | {"linear_shortcut": False},
    "single pixels, linear shortcut": SINGLE,
    "patches": {"linear_shortcut": False},
    "patches, linear shortcut": {},
    "patches, linear shortcut, attention": {"mid_attention": True},
}


def train(job: tuple[str, int]) -> dict:
    """The figures of one change and seed."""
    name, seed = job
    training = load_dogs(RESOLUTION, "train")
    test = load_dogs(RESOLUTION, "test")
    model = photo_model(seed, training, FACTOR, **CHANGES[name])
    augment, seen = counting_flip()
    settings = {"batch_size": 8, "lr": 3e-3, "ema": 0.999, "augment": augment, "seed": seed}
    fit(model, partial(image_loss, beta=0.1), training, minutes=MINUTES, **settings)
    figures = measure_reconstructions(model, training, test)
    print(f"seed {seed}  {name:36} {figures['psnr']:.2f} dB", flush=True)
    return {
        "psnr": figures["psnr"],
        "block_pca_psnr": figures["block_pca_psnr"],
        "images": sum(seen),
        "weights": sum(weight.numel() for weight in model.parameters()),
        "on": describe_device(),
        "source": test.source,
    }


def main() -> None:
    jobs = [(name, seed) for seed in SEEDS for name in CHANGES]
    found = dict(zip(jobs, side_by_side(train, jobs), strict=True))
    source, on, linear = take_shared(found.values(), "source", "on", "block_pca_psnr")
    rows = {name: over_seeds([found[name, seed] for seed in SEEDS]) for name in CHANGES}
    values = {"minutes": MINUTES, "on": on, "resolution": RESOLUTION, "factor": FACTOR}
    publish("dog_cure", values | {"block_pca_psnr": linear, "rows": rows}, seeds=SEEDS, data=source)


if __name__ == "__main__":
    main()
