"""The course's dogs: 64 px at f4 (three seeds; the first is shipped), 64 and 128 px at f8.  About 65 minutes on two cores.

Every run has one core to itself.
"""

from helpers.budget import budget
from helpers.results import save_result
from tests.benchmarks.common import SEEDS, SUFFIX, figures_of, mean_sd, side_by_side, take_shared

MINUTES = budget(quick=0.05, cpu=20.0, gpu=10.0)
RUNS = {"64 px, f4": (64, 4, SEEDS), "64 px, f8": (64, 8, SEEDS[:1]), "128 px, f8": (128, 8, SEEDS[:1])}
WIDER = budget(quick=[], cpu=[], gpu=["--widths", 32, 64, 128, 128])  # at f8: what a GPU affords
SHIPPED = "64 px, f4"


def train(job: tuple[str, int]) -> dict:
    """The figures of one run of the command line; the first seed of SHIPPED becomes the checkpoint of the course."""
    name, seed = job
    resolution, factor, seeds = RUNS[name]
    words = ["--resolution", resolution, "--factor", factor, "--minutes", MINUTES, "--seed", seed]
    words += WIDER if factor == 8 else []
    words += ["--export", "dogs_vae" + SUFFIX] if name == SHIPPED and seed == seeds[0] else []
    return figures_of(f"bench_8_dogs-{resolution}-{factor}-{seed}", words)


def main() -> None:
    jobs = [(name, seed) for name, (*_, seeds) in RUNS.items() for seed in seeds]
    figures = dict(zip(jobs, side_by_side(train, jobs), strict=True))
    source, on = take_shared(figures.values(), "source", "on")
    rows = {}
    for name, (*_, seeds) in RUNS.items():
        columns = {key: [figures[name, seed][key] for seed in seeds] for key in figures[name, seeds[0]]}
        rows[name] = {key: mean_sd(v) if len(v) > 1 else {"mean": v[0], "each": v} for key, v in columns.items()}
    values = {"minutes": MINUTES, "on": on, "rows": rows}
    save_result("dogs" + SUFFIX, values, seeds=SEEDS, data=source)


if __name__ == "__main__":
    main()
