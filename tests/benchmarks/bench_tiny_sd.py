"""The tiny Stable Diffusion: twenty minutes of training from scratch, three seeds; sampling.

First the classifier that measures prompt accuracy is trained.  Then one training after another,
each with all cores; the first seed's pipeline comes with the course.  About 70 minutes.
"""

import statistics
import time

from helpers.classifiers.dogs import DogClassifier, prompt_accuracy, train_dog_classifier
from helpers.data.synthetic_dogs import load_synthetic_dogs
from helpers.diffusion.parts import load_tiny_sd, sample
from helpers.env import budget, published_dir
from helpers.results import describe_device
from helpers.train_tiny_sd import SEEN, draw_prompts
from helpers.train_tiny_sd import main as train_tiny_sd
from helpers.training.checkpoints import load_shipped, save_model
from tests.benchmarks.common import SEEDS, mean_sd, over_seeds, publish, take_shared

NEEDS = ()
WRITES = ("results/tiny_sd", "checkpoints/dog_classifier", "checkpoints/tiny-sd")

MINUTES = budget(quick=0.05, cpu=20.0, gpu=10.0)
DOGS = budget(quick=96, cpu=9600, gpu=9600)
TEST_DOGS = budget(quick=96, cpu=960, gpu=960)
CLASSIFIER_EPOCHS = budget(quick=1, cpu=6, gpu=6)
PICTURES = 16  # drawn at once, to time sampling
TURNS = budget(quick=1, cpu=5, gpu=5)


def make_classifier() -> dict[str, float]:
    """Train and save the classifier, on drawings that no pipeline sees; its accuracy on others."""
    dogs = load_synthetic_dogs(DOGS, 64, "train", seed=7)
    save_model("dog_classifier", train_dog_classifier(dogs, CLASSIFIER_EPOCHS), half=True)
    held_out = load_synthetic_dogs(TEST_DOGS, 64, "test")
    classifier = load_shipped(DogClassifier, "dog_classifier")
    return prompt_accuracy(classifier, held_out.pixels(), held_out.captions)


def train(seed: int) -> dict:
    """The figures of one run of `python -m helpers.train_tiny_sd`."""
    words = ["--minutes", MINUTES, "--dogs", DOGS, "--seed", seed, "--run", f"bench_tiny_sd-{seed}"]
    if seed == SEEDS[0]:
        words += ["--export", "tiny-sd"]
    return train_tiny_sd(list(map(str, words))) | {"on": describe_device()}


def sampling_seconds() -> dict:
    """Seconds to draw PICTURES in twenty steps, on all cores."""
    pipeline = load_tiny_sd(published_dir("checkpoints") / "tiny-sd")
    prompts = draw_prompts(SEEN, PICTURES)
    sample(pipeline, prompts, steps=2)  # warm
    seconds = []
    for _ in range(TURNS):
        started = time.perf_counter()
        sample(pipeline, prompts)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    return {"pictures": PICTURES, "median": median, "each": seconds, "on": describe_device()}


def main() -> None:
    accuracy = make_classifier()
    runs = [train(seed) for seed in SEEDS]
    on, dogs = take_shared(runs, "on", "dogs")
    shares = [run.pop("shares") for run in runs]
    values = {
        "minutes": MINUTES,
        "on": on,
        "dogs": dogs,
        "classifier on drawings": accuracy,
        "shares": {kind: over_seeds([each[kind] for each in shares]) for kind in shares[0]},
        "psnr": mean_sd([run["psnr"] for run in runs]),
        "scaling_factor": mean_sd([run["scaling_factor"] for run in runs]),
        "sampling": sampling_seconds(),
    }
    publish("tiny_sd", values, seeds=SEEDS, data="drawn dogs, embedded")


if __name__ == "__main__":
    main()
