"""784-400-20 on grey MNIST: our recipe against the tutorial's, interleaved, three seeds.  About 3 minutes."""

from helpers.results import save_result
from helpers.training import evaluate
from tests.benchmarks.common import RECIPE_20D, SEEDS, mean_sd, mnist, report, train_vae, vae_loss
from tests.benchmarks.tutorial_recipes import TutorialVAE, test_nats, train_published


def main() -> None:
    train, test = mnist()
    seconds, nats = {"tutorial": [], "ours": []}, {"tutorial": [], "ours": []}
    for seed in SEEDS:
        model, took = train_published(TutorialVAE, 10, seed)
        seconds["tutorial"].append(took)
        nats["tutorial"].append(test_nats(model, test)["loss"])
        model, took, _ = train_vae(train, seed)
        seconds["ours"].append(took)
        nats["ours"].append(evaluate(model, vae_loss, test)["loss"])
        print(f"seed {seed}: seconds {seconds}, nats {nats}", flush=True)
    values = {"seconds": report("training", "s", seconds), "recipe": RECIPE_20D}
    values["test nats"] = {name: mean_sd(each) for name, each in nats.items()}
    print({name: f"{v['mean']:.2f} ± {v['sd']:.2f} test nats" for name, v in values["test nats"].items()})
    save_result("mlp_vs_tutorial", values, seeds=SEEDS, data=train.source)


if __name__ == "__main__":
    main()
