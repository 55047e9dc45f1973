"""What compression costs: four- and eight-fold, 4, 8 and 16 channels, the same minutes each.

Three seeds; every run has one core to itself.  About 80 minutes on two cores.
"""

from helpers.data.datasets import load_dogs
from helpers.env import budget
from helpers.metrics.images import BlockPCA, psnr
from helpers.rng import generator_for
from tests.benchmarks.common import SEEDS, figures_of, over_seeds, publish, take_shared
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/dog_rates",)

RESOLUTION = 64
MINUTES = budget(quick=0.02, cpu=8.0, gpu=8.0)


def linear_psnr(factor: int, nats: float) -> float:
    """PSNR in dB of the best linear code that says no more than `nats` per image."""
    linear = BlockPCA(load_dogs(RESOLUTION, "train"), factor, 3 * factor**2)
    images = load_dogs(RESOLUTION, "test").pixels()
    noisy = linear.reconstruct_noisy(images, nats, generator_for("rates"))
    return psnr(noisy, images).mean().item()


def train(job: tuple[int, int, int]) -> dict:
    """The figures of one run of the command line, and the linear code's beside them."""
    factor, channels, seed = job
    words = ["--resolution", RESOLUTION, "--factor", factor, "--seed", seed]
    words += ["--latent-channels", channels, "--minutes", MINUTES]
    figures = figures_of(f"bench_dog_rates-{factor}-{channels}-{seed}", words)
    return figures | {"linear_psnr": linear_psnr(factor, figures["kl"])}


def main() -> None:
    rates = [(factor, channels) for factor in (4, 8) for channels in (4, 8, 16)]
    jobs = [(*rate, seed) for seed in SEEDS for rate in rates]
    found = dict(zip(jobs, side_by_side(train, jobs), strict=True))
    source, on = take_shared(found.values(), "source", "on")
    rows = [
        {"factor": rate[0], "channels": rate[1]}
        | over_seeds([found[*rate, seed] for seed in SEEDS])
        for rate in rates
    ]
    values = {"minutes": MINUTES, "on": on, "resolution": RESOLUTION, "rows": rows}
    publish("dog_rates", values, seeds=SEEDS, data=source)


if __name__ == "__main__":
    main()
