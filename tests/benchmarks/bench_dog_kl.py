"""What the weight of the KL does: the same network and steps, four values of β, three seeds.

Every run has one thread to itself.  About 18 minutes on two cores.
"""

from helpers.env import budget
from tests.benchmarks.common import SEEDS, figures_of, over_seeds, publish, take_shared
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/dog_kl",)

RESOLUTION = 64
FACTOR = 4
STEPS = budget(quick=4, cpu=800, gpu=4000)
BETAS = (0.001, 0.1, 1.0, 10.0)


def train(job: tuple[float, int]) -> dict:
    """The figures of one run of the command line."""
    beta, seed = job
    words = ["--resolution", RESOLUTION, "--factor", FACTOR]
    words += ["--beta", beta, "--steps", STEPS, "--seed", seed]
    return figures_of(f"bench_dog_kl-{beta:g}-{seed}", words)


def main() -> None:
    jobs = [(beta, seed) for seed in SEEDS for beta in BETAS]
    figures = dict(zip(jobs, side_by_side(train, jobs), strict=True))
    source, _ = take_shared(figures.values(), "source", "on")
    rows = {str(beta): over_seeds([figures[beta, seed] for seed in SEEDS]) for beta in BETAS}
    values = {"steps": STEPS, "resolution": RESOLUTION, "factor": FACTOR, "rows": rows}
    publish("dog_kl", values, seeds=SEEDS, data=source)


if __name__ == "__main__":
    main()
