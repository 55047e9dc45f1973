"""Two latents on grey MNIST: our recipe (15 epochs) against the blog's (20), interleaved, three seeds.  About 5 minutes."""

from helpers.results import save_result
from helpers.training import evaluate
from tests.benchmarks.common import HIDDEN_2D, RECIPE_2D, SEEDS, mean_sd, mnist, report, train_vae, vae_loss
from tests.benchmarks.tutorial_recipes import BlogVAE, test_nats, train_published


def main() -> None:
    train, test = mnist()
    seconds, nats, kl = {"blog": [], "ours": []}, {"blog": [], "ours": []}, {"blog": [], "ours": []}
    for seed in SEEDS:
        model, took = train_published(BlogVAE, 20, seed)
        blog = test_nats(model, test)
        model, ours_took, _ = train_vae(train, seed, latent=2)
        ours = evaluate(model, vae_loss, test)
        for name, score, time in (("blog", blog, took), ("ours", ours, ours_took)):
            seconds[name].append(time)
            nats[name].append(score["loss"])
            kl[name].append(score["kl"])
        print(f"seed {seed}: seconds {seconds}, nats {nats}", flush=True)
    values = {"seconds": report("training", "s", seconds), "recipe": RECIPE_2D, "hidden": HIDDEN_2D}
    values["test nats"] = {name: mean_sd(each) for name, each in nats.items()}
    values["test kl"] = {name: mean_sd(each) for name, each in kl.items()}
    print({name: f"{v['mean']:.2f} ± {v['sd']:.2f} test nats" for name, v in values["test nats"].items()})
    save_result("mlp_2d_vs_blog", values, seeds=SEEDS, data=train.source)


if __name__ == "__main__":
    main()
