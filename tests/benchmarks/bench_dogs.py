"""The course's dogs: 64 px at f4 (three seeds; the first is shipped), 64 and 128 px at f8.

Every run has one core to itself.  About 65 minutes on two cores.
"""

from helpers.env import budget
from tests.benchmarks.common import SEEDS, SUFFIX, figures_of, over_seeds, publish, take_shared
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/dogs", "checkpoints/dogs_vae")

MINUTES = budget(quick=0.05, cpu=20.0, gpu=10.0)
RUNS = {  # resolution, factor, seeds
    "64 px, f4": (64, 4, SEEDS),
    "64 px, f8": (64, 8, SEEDS[:1]),
    "128 px, f8": (128, 8, SEEDS[:1]),
}
WIDER = budget(quick=[], cpu=[], gpu=["--channels", 32, 64, 128, 128])  # f8: what a GPU affords
SHIPPED = "64 px, f4"


def train(job: tuple[str, int]) -> dict:
    """The figures of one run of the command line.

    The first seed of SHIPPED becomes the checkpoint of the course.
    """
    name, seed = job
    resolution, factor, seeds = RUNS[name]
    words = ["--resolution", resolution, "--factor", factor, "--minutes", MINUTES, "--seed", seed]
    words += ["--ema", 0, "--plain"]
    if factor == 8:
        words += WIDER
    if name == SHIPPED and seed == seeds[0]:
        words += ["--export", "dogs_vae" + SUFFIX]
    return figures_of(f"bench_dogs-{resolution}-{factor}-{seed}", words)


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
