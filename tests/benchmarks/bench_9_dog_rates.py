"""What compression costs: four- and eight-fold, 4, 8 and 16 channels, the same minutes each.  About 33 minutes on two cores.

Every run has one core to itself.
"""

from helpers import train_dogs
from helpers.budget import budget, generator_for
from helpers.data import load_dogs
from helpers.image_metrics import BlockPCA, psnr
from helpers.results import describe_device, save_result
from tests.benchmarks.common import side_by_side

RESOLUTION, MINUTES = 64, budget(quick=0.02, cpu=10.0, gpu=10.0)


def train(job: tuple[int, int]) -> dict:
    factor, channels = job
    words = ["--resolution", RESOLUTION, "--factor", factor, "--latent-channels", channels, "--minutes", MINUTES]
    figures = train_dogs.main([*map(str, words), "--run", f"bench-rates-{factor}-{channels}"])
    linear, test = BlockPCA(load_dogs(RESOLUTION, "train"), factor, 3 * factor**2), load_dogs(RESOLUTION, "test")
    noisy = linear.reconstruct_noisy(test.pixels(), figures["kl"], generator_for("rates"))
    figures |= {"linear_psnr": psnr(noisy, test.pixels()).mean().item(), "on": describe_device()}
    return {"factor": factor, "channels": channels} | figures


def main() -> None:
    rows = side_by_side(train, [(factor, channels) for factor in (4, 8) for channels in (4, 8, 16)])
    source, on = {row.pop("source") for row in rows}, {row.pop("on") for row in rows}
    values = {"minutes": MINUTES, "on": on.pop(), "resolution": RESOLUTION, "rows": rows}
    save_result("dog_rates", values, seeds=[0], data=source.pop())


if __name__ == "__main__":
    main()
