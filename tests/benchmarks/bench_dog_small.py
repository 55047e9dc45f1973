"""How far a network of a few layers comes, and how fast: what the deep one has to beat.

Every run has one core to itself.  About 11 minutes on two cores.
"""

from functools import partial

from helpers.data.augment import random_flip
from helpers.data.datasets import load_dogs
from helpers.env import budget
from helpers.metrics.images import measure_reconstructions
from helpers.models.conv_vae import image_loss
from helpers.results import describe_device
from helpers.rng import seed_everything
from helpers.training.loop import fit
from tests.benchmarks.common import publish, take_shared
from tests.benchmarks.course_recipes import SmallVAE
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/dog_small",)

RESOLUTION = 64
MINUTES = budget(  # 8 as in bench_dog_rates, whose networks are deep
    quick=(0.02, 0.03), cpu=(8.0, 2.0, 0.5), gpu=(8.0, 2.0, 0.5)
)


def train(job: tuple[int, float]) -> dict:
    """The figures of one training."""
    factor, minutes = job
    training = load_dogs(RESOLUTION, "train")
    test = load_dogs(RESOLUTION, "test")
    seed_everything(0)
    model = SmallVAE(factor)
    loss = partial(image_loss, beta=0.1)
    settings = {"batch_size": 16, "lr": 5e-3, "augment": random_flip}
    fit(model, loss, training, minutes=minutes, **settings)
    return {
        "factor": factor,
        "minutes": minutes,
        "weights": sum(weight.numel() for weight in model.parameters()),
        **measure_reconstructions(model, training, test),
        "on": describe_device(),
        "source": test.source,
    }


def main() -> None:
    rows = side_by_side(train, [(factor, minutes) for minutes in MINUTES for factor in (4, 8)])
    source, on = take_shared(rows, "source", "on")
    rows.sort(key=lambda row: (row["factor"], row["minutes"]))
    print(*rows, sep="\n")
    values = {"on": on, "resolution": RESOLUTION, "rows": rows}
    publish("dog_small", values, seeds=[0], data=source)


if __name__ == "__main__":
    main()
