"""The course's checkpoints of dogs, trained for hours: 64 px at f4, and 128 px at f8.

The seed is the best of `bench_dogs` by validation.  Every run has one core to itself, and a run
that was stopped goes on where it was.  About three hours on two cores.
"""

from helpers.env import budget
from helpers.results import load_result
from tests.benchmarks.common import SUFFIX, figures_of, publish, take_shared
from tests.benchmarks.parallel import side_by_side

NEEDS = ("results/dogs",)
WRITES = ("results/dogs_shipped", "checkpoints/dogs_vae", "checkpoints/dogs_vae_128")

MINUTES = budget(quick=0.05, cpu=180.0, gpu=60.0)
RUNS = {"dogs_vae": (64, 4), "dogs_vae_128": (128, 8)}  # resolution, factor


def train(name: str) -> dict:
    """The figures of one checkpoint."""
    resolution, factor = RUNS[name]
    each = load_result("dogs")["values"]["rows"]["64 px, f4"]["validation"]["each"]
    words = ["--resolution", resolution, "--factor", factor, "--minutes", MINUTES]
    words += ["--seed", each.index(max(each)), "--export", name + SUFFIX]
    return figures_of(f"bench_dogs_shipped-{resolution}", words)


def main() -> None:
    rows = dict(zip(RUNS, side_by_side(train, list(RUNS)), strict=True))
    (on,) = take_shared(rows.values(), "on")
    source = rows["dogs_vae"].pop("source")
    rows["dogs_vae_128"].pop("source")
    values = {"minutes": MINUTES, "on": on, "rows": rows}
    publish("dogs_shipped" + SUFFIX, values, seeds=[0], data=source)


if __name__ == "__main__":
    main()
