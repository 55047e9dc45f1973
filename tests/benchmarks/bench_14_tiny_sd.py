"""The tiny Stable Diffusion: twenty minutes of training from nothing, three seeds; the judge; sampling.  About 70 minutes.

One training after another, each with all cores; the first seed's pipeline comes with the course.
"""

import statistics
import time

from helpers.budget import budget, published_dir
from helpers.checkpoints import load_shipped, save_model
from helpers.dog_judge import DogJudge, adherence, train_judge
from helpers.drawn_dogs import load_drawn_dogs
from helpers.results import describe_device, save_result
from helpers.text_to_image import SEEN, draw_prompts
from helpers.text_to_image import main as train_tiny_sd
from helpers.tiny_sd import load_tiny_sd, sample
from tests.benchmarks.common import SEEDS, mean_sd, over_seeds, take_shared

MINUTES, DOGS = budget(quick=0.05, cpu=20.0, gpu=10.0), budget(quick=96, cpu=9600, gpu=9600)
JUDGE_EPOCHS = budget(quick=1, cpu=6, gpu=6)


def make_judge() -> dict[str, float]:
    """Train and save the judge, on drawings that no pipeline sees; the shares of held-out drawings that it tells right."""
    save_model("dog_judge", train_judge(load_drawn_dogs(DOGS, 64, "train", seed=7), JUDGE_EPOCHS), half=True)
    dogs = load_drawn_dogs(budget(quick=96, cpu=960, gpu=960), 64, "test")
    return adherence(load_shipped(DogJudge, "dog_judge"), dogs.pixels(), dogs.captions)


def train(seed: int) -> dict:
    """The figures of one run of `python -m helpers.text_to_image`."""
    words = ["--minutes", str(MINUTES), "--dogs", str(DOGS), "--seed", str(seed), "--run", f"bench_14_tiny_sd-{seed}"]
    return train_tiny_sd(words + ["--export", "tiny-sd"] * (seed == SEEDS[0])) | {"on": describe_device()}


def sampling_seconds(count: int = 16, turns: int = budget(quick=1, cpu=5, gpu=5)) -> dict[str, dict]:
    """Seconds to draw `count` pictures in twenty steps, on all cores."""
    pipeline, prompts, seconds = load_tiny_sd(published_dir("checkpoints") / "tiny-sd"), draw_prompts(SEEN, count), []
    sample(pipeline, prompts, steps=2)  # warm
    for _ in range(turns):
        started = time.perf_counter()
        sample(pipeline, prompts)
        seconds.append(time.perf_counter() - started)
    return {"pictures": count, "median": statistics.median(seconds), "each": seconds, "on": describe_device()}


def main() -> None:
    judge = make_judge()
    runs = [train(seed) for seed in SEEDS]
    on, dogs = take_shared(runs, "on", "dogs")
    shares = [run.pop("shares") for run in runs]
    found = {kind: over_seeds([each[kind] for each in shares]) for kind in shares[0]}
    values = {"minutes": MINUTES, "on": on, "dogs": dogs, "judge on drawings": judge, "shares": found}
    values |= {name: mean_sd([run[name] for run in runs]) for name in ("psnr", "scaling_factor")}
    save_result("tiny_sd", values | {"sampling": sampling_seconds()}, seeds=SEEDS, data="drawn dogs, embedded")


if __name__ == "__main__":
    main()
