"""What compression costs: four- and eight-fold, 4, 8 and 16 channels, the same minutes each.

Every run has one core to itself.  About 28 minutes on two cores.
"""

from helpers.data.datasets import load_dogs
from helpers.env import budget
from helpers.metrics.images import BlockPCA, psnr
from helpers.rng import generator_for
from tests.benchmarks.common import figures_of, publish, take_shared
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


def train(job: tuple[int, int]) -> dict:
    """The figures of one run of the command line, and the linear code's beside them."""
    factor, channels = job
    words = ["--resolution", RESOLUTION, "--factor", factor]
    words += ["--latent-channels", channels, "--minutes", MINUTES, "--plain"]
    figures = figures_of(f"bench_dog_rates-{factor}-{channels}", words)
    linear = linear_psnr(factor, figures["kl"])
    return {"factor": factor, "channels": channels} | figures | {"linear_psnr": linear}


def main() -> None:
    jobs = [(factor, channels) for factor in (4, 8) for channels in (4, 8, 16)]
    rows = side_by_side(train, jobs)
    source, on = take_shared(rows, "source", "on")
    values = {"minutes": MINUTES, "on": on, "resolution": RESOLUTION, "rows": rows}
    publish("dog_rates", values, seeds=[0], data=source)


if __name__ == "__main__":
    main()
