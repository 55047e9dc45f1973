"""The course's dogs: 64 px at f4 (three seeds), 64 and 128 px at f8, for twenty minutes.

Every run has one core to itself.  About 55 minutes on two cores.
"""

from helpers.data.datasets import load_dogs
from helpers.env import budget
from helpers.metrics.images import psnr, reconstruct
from helpers.training.run_state import finished_weights
from helpers.training.starting_point import load_vae
from tests.benchmarks.common import SEEDS, SUFFIX, figures_of, over_seeds, publish, take_shared
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/dogs",)

MINUTES = budget(quick=0.05, cpu=20.0, gpu=10.0)
RUNS = {  # resolution, factor, seeds
    "64 px, f4": (64, 4, SEEDS),
    "64 px, f8": (64, 8, SEEDS[:1]),
    "128 px, f8": (128, 8, SEEDS[:1]),
}
WIDER = budget(quick=[], cpu=[], gpu=["--channels", 128, 256])  # f8: what a GPU affords


def train(job: tuple[str, int]) -> dict:
    """The figures of one run of the command line, and "validation": PSNR on that split."""
    name, seed = job
    resolution, factor, seeds = RUNS[name]
    words = ["--resolution", resolution, "--factor", factor, "--minutes", MINUTES, "--seed", seed]
    if factor == 8:
        words += WIDER
    run = f"bench_dogs-{resolution}-{factor}-{seed}"
    figures = figures_of(run, words)
    vae, _ = load_vae(finished_weights(run))
    validation = load_dogs(resolution, "validation")
    quality = psnr(reconstruct(vae, validation), validation.pixels()).mean().item()
    return figures | {"validation": quality}


def main() -> None:
    jobs = [(name, seed) for name, (*_, seeds) in RUNS.items() for seed in seeds]
    figures = dict(zip(jobs, side_by_side(train, jobs), strict=True))
    source, on = take_shared(figures.values(), "source", "on")
    rows = {
        name: over_seeds([figures[name, seed] for seed in seeds])
        for name, (*_, seeds) in RUNS.items()
    }
    values = {"minutes": MINUTES, "on": on, "rows": rows}
    publish("dogs" + SUFFIX, values, seeds=SEEDS, data=source)


if __name__ == "__main__":
    main()
