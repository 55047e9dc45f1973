"""What the weight of the KL does: the same network and steps, four values of β, three seeds.  About 18 minutes.

Every run has one thread to itself, on two cores.
"""

from helpers.budget import budget
from helpers.results import save_result
from tests.benchmarks.common import SEEDS, figures_of, over_seeds, side_by_side, take_shared

RESOLUTION, FACTOR, STEPS = 64, 4, budget(quick=4, cpu=800, gpu=4000)
BETAS = (0.001, 0.1, 1.0, 10.0)


def train(job: tuple[float, int]) -> dict:
    beta, seed = job
    words = ["--resolution", RESOLUTION, "--factor", FACTOR, "--beta", beta, "--steps", STEPS, "--seed", seed]
    return figures_of(f"bench_13_dog_kl-{beta:g}-{seed}", words)


def main() -> None:
    jobs = [(beta, seed) for seed in SEEDS for beta in BETAS]
    figures = dict(zip(jobs, side_by_side(train, jobs), strict=True))
    source, _ = take_shared(figures.values(), "source", "on")
    rows = {str(beta): over_seeds([figures[beta, seed] for seed in SEEDS]) for beta in BETAS}
    values = {"steps": STEPS, "resolution": RESOLUTION, "factor": FACTOR, "rows": rows}
    save_result("dog_kl", values, seeds=SEEDS, data=source)


if __name__ == "__main__":
    main()
