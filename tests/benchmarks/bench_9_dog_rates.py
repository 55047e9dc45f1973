"""What compression costs: four- and eight-fold, 4, 8 and 16 channels, the same minutes each.  About 28 minutes on two cores.

Every run has one core to itself.
"""

from helpers.budget import budget, generator_for
from helpers.data import load_dogs
from helpers.image_metrics import BlockPCA, psnr
from helpers.results import save_result
from tests.benchmarks.common import figures_of, side_by_side, take_shared

RESOLUTION, MINUTES = 64, budget(quick=0.02, cpu=8.0, gpu=8.0)


def train(job: tuple[int, int]) -> dict:
    factor, channels = job
    words = ["--resolution", RESOLUTION, "--factor", factor, "--latent-channels", channels, "--minutes", MINUTES]
    figures = figures_of(f"bench_9_dog_rates-{factor}-{channels}", words)
    linear, test = BlockPCA(load_dogs(RESOLUTION, "train"), factor, 3 * factor**2), load_dogs(RESOLUTION, "test")
    noisy = linear.reconstruct_noisy(test.pixels(), figures["kl"], generator_for("rates"))
    linear_psnr = psnr(noisy, test.pixels()).mean().item()
    return {"factor": factor, "channels": channels} | figures | {"linear_psnr": linear_psnr}


def main() -> None:
    rows = side_by_side(train, [(factor, channels) for factor in (4, 8) for channels in (4, 8, 16)])
    source, on = take_shared(rows, "source", "on")
    values = {"minutes": MINUTES, "on": on, "resolution": RESOLUTION, "rows": rows}
    save_result("dog_rates", values, seeds=[0], data=source)


if __name__ == "__main__":
    main()
