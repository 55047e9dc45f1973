"""What the weight of the KL does: the same network and minutes, four values of β.  About 7 minutes on two cores.

Every run has one core to itself.
"""

from helpers.budget import budget
from helpers.results import save_result
from tests.benchmarks.common import figures_of, side_by_side, take_shared

RESOLUTION, FACTOR, MINUTES = 64, 4, budget(quick=0.02, cpu=3.0, gpu=3.0)
BETAS = (0.001, 0.1, 1.0, 10.0)


def train(beta: float) -> dict:
    words = ["--resolution", RESOLUTION, "--factor", FACTOR, "--beta", beta, "--minutes", MINUTES]
    return figures_of(f"bench_13_dog_kl-{beta:g}", words)


def main() -> None:
    rows = dict(zip(map(str, BETAS), side_by_side(train, list(BETAS)), strict=True))
    source, on = take_shared(rows.values(), "source", "on")
    values = {"minutes": MINUTES, "on": on, "resolution": RESOLUTION, "factor": FACTOR, "rows": rows}
    save_result("dog_kl", values, seeds=[0], data=source)


if __name__ == "__main__":
    main()
