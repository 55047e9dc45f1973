"""What the weight of the KL does: the same network and minutes, four values of β.  About 7 minutes on two cores.

Every run has one core to itself.
"""

from helpers import train_dogs
from helpers.budget import budget
from helpers.results import describe_device, save_result
from tests.benchmarks.common import side_by_side

RESOLUTION, FACTOR, MINUTES = 64, 4, budget(quick=0.02, cpu=3.0, gpu=3.0)
BETAS = (0.001, 0.1, 1.0, 10.0)


def train(beta: float) -> dict:
    words = ["--resolution", RESOLUTION, "--factor", FACTOR, "--beta", beta, "--minutes", MINUTES]
    return train_dogs.main([*map(str, words), "--run", f"bench-kl-{beta:g}"]) | {"on": describe_device()}


def main() -> None:
    rows = dict(zip(map(str, BETAS), side_by_side(train, list(BETAS)), strict=True))
    source, on = {row.pop("source") for row in rows.values()}, {row.pop("on") for row in rows.values()}
    values = {"minutes": MINUTES, "on": on.pop(), "resolution": RESOLUTION, "factor": FACTOR, "rows": rows}
    save_result("dog_kl", values, seeds=[0], data=source.pop())


if __name__ == "__main__":
    main()
