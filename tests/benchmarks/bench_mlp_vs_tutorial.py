"""784-400-20 on grey MNIST: the course's recipe against the tutorial's.

Interleaved, three seeds.  About 3 minutes.
"""

from helpers.training.loop import evaluate
from tests.benchmarks.common import (
    RECIPE_20D,
    SEEDS,
    compare,
    mean_sd,
    mnist,
    publish,
    train_vae,
    vae_loss,
)
from tests.benchmarks.tutorial_recipes import TutorialVAE, published_nats, train_published

NEEDS = ()
WRITES = ("results/mlp_vs_tutorial",)


def main() -> None:
    train, test = mnist()
    seconds = {"tutorial": [], "ours": []}
    nats = {"tutorial": [], "ours": []}
    for seed in SEEDS:
        model, took = train_published(TutorialVAE, 10, seed)
        seconds["tutorial"].append(took)
        nats["tutorial"].append(published_nats(model, test)["loss"])
        model, took, _ = train_vae(train, seed)
        seconds["ours"].append(took)
        nats["ours"].append(evaluate(model, vae_loss, test)["loss"])
        print(f"seed {seed}: seconds {seconds}, nats {nats}", flush=True)
    values = {
        "seconds": compare("training", "s", seconds),
        "recipe": RECIPE_20D,
        "test nats": {name: mean_sd(each) for name, each in nats.items()},
    }
    for name, row in values["test nats"].items():
        print(f"{name}: {row['mean']:.2f} ± {row['sd']:.2f} test nats")
    publish("mlp_vs_tutorial", values, seeds=SEEDS, data=train.source)


if __name__ == "__main__":
    main()
