"""How far a network of a few layers comes, and how fast: what the deep one has to beat.  About 11 minutes.

Every run has one core to itself, on two cores.  The deep network's minutes are those of bench_9 and bench_8.
"""

from functools import partial

from helpers.budget import budget, seed_everything
from helpers.conv_vae import image_loss
from helpers.data import load_dogs, random_flip
from helpers.image_metrics import measure
from helpers.results import describe_device, save_result
from helpers.training import fit
from tests.benchmarks.common import side_by_side, take_shared
from tests.benchmarks.dog_recipes import SmallVAE

RESOLUTION, MINUTES = 64, budget(quick=(0.02, 0.03), cpu=(8.0, 2.0, 0.5), gpu=(8.0, 2.0, 0.5))


def train(job: tuple[int, float]) -> dict:
    factor, minutes = job
    training, test = load_dogs(RESOLUTION, "train"), load_dogs(RESOLUTION, "test")
    seed_everything(0)
    model, loss = SmallVAE(factor), partial(image_loss, beta=0.1)
    fit(model, loss, training, minutes=minutes, batch_size=16, lr=5e-3, augment=random_flip)
    weights = sum(weight.numel() for weight in model.parameters())
    figures = {"factor": factor, "minutes": minutes, "weights": weights} | measure(model, training, test)
    return figures | {"on": describe_device(), "source": test.source}


def main() -> None:
    rows = side_by_side(train, [(factor, minutes) for minutes in MINUTES for factor in (4, 8)])
    source, on = take_shared(rows, "source", "on")
    rows.sort(key=lambda row: (row["factor"], row["minutes"]))
    print(*rows, sep="\n")
    save_result("dog_small", {"on": on, "resolution": RESOLUTION, "rows": rows}, seeds=[0], data=source)


if __name__ == "__main__":
    main()
