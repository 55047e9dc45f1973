"""Two latent dimensions on grey MNIST: the course's recipe (15 epochs) against the blog's (20).

Interleaved, three seeds.  About 5 minutes.
"""

from helpers.training.loop import evaluate
from tests.benchmarks.common import (
    HIDDEN_2D,
    RECIPE_2D,
    SEEDS,
    compare,
    mean_sd,
    mnist,
    publish,
    train_vae,
    vae_loss,
)
from tests.benchmarks.tutorial_recipes import BlogVAE, published_nats, train_published

NEEDS = ()
WRITES = ("results/mlp_2d_vs_blog",)


def main() -> None:
    train, test = mnist()
    seconds = {"blog": [], "ours": []}
    nats = {"blog": [], "ours": []}
    kl = {"blog": [], "ours": []}
    for seed in SEEDS:
        model, blog_seconds = train_published(BlogVAE, 20, seed)
        blog = published_nats(model, test)
        model, our_seconds, _ = train_vae(train, seed, latent=2)
        ours = evaluate(model, vae_loss, test)
        for name, score, took in (("blog", blog, blog_seconds), ("ours", ours, our_seconds)):
            seconds[name].append(took)
            nats[name].append(score["loss"])
            kl[name].append(score["kl"])
        print(f"seed {seed}: seconds {seconds}, nats {nats}", flush=True)
    values = {
        "seconds": compare("training", "s", seconds),
        "recipe": RECIPE_2D,
        "hidden": HIDDEN_2D,
        "test nats": {name: mean_sd(each) for name, each in nats.items()},
        "test kl": {name: mean_sd(each) for name, each in kl.items()},
    }
    for name, row in values["test nats"].items():
        print(f"{name}: {row['mean']:.2f} ± {row['sd']:.2f} test nats")
    publish("mlp_2d_vs_blog", values, seeds=SEEDS, data=train.source)


if __name__ == "__main__":
    main()
