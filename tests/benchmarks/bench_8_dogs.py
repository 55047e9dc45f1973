"""The course's dogs: 64 px at f4 (three seeds; the first is shipped), 64 and 128 px at f8.  About 110 minutes."""

from helpers import train_dogs
from helpers.budget import budget
from helpers.results import save_result
from tests.benchmarks.common import SEEDS, mean_sd

MINUTES = budget(quick=0.05, cpu=20.0, gpu=10.0)
RUNS = {"64 px, f4": (64, 4, SEEDS), "64 px, f8": (64, 8, SEEDS[:1]), "128 px, f8": (128, 8, SEEDS[:1])}
SHIPPED = "64 px, f4"


def train(name: str, seed: int) -> dict:
    """The figures of one run of the command line; the first seed of SHIPPED becomes the checkpoint of the course."""
    resolution, factor, seeds = RUNS[name]
    words = ["--resolution", resolution, "--factor", factor, "--minutes", MINUTES, "--seed", seed]
    words += ["--run", f"bench-dogs-{resolution}-{factor}-{seed}"]
    words += ["--export", "dogs_vae"] if name == SHIPPED and seed == seeds[0] else []
    return train_dogs.main(list(map(str, words)))


def main() -> None:
    rows = {}
    for name, (_, _, seeds) in RUNS.items():
        found = [train(name, seed) for seed in seeds]
        each = {key: [figures[key] for figures in found] for key in found[0]}
        rows[name] = {
            key: mean_sd(v) if len(v) > 1 else {"mean": v[0], "each": v} for key, v in each.items() if key != "source"
        }
    values = {"minutes": MINUTES, "rows": rows}
    save_result("dogs", values, seeds=SEEDS, data=found[0]["source"])


if __name__ == "__main__":
    main()
