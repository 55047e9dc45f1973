"""The 20-number VAE with β from 0.1 to 10: both terms, active units, judged samples; three seeds.  About 3 minutes."""

from functools import partial

from helpers.metrics import active_units, encode_all, frechet_distance, judge_images, train_judge
from helpers.results import save_result
from helpers.training import evaluate
from tests.benchmarks.common import SEEDS, beta_loss, decode, mean_sd, mnist, normal_codes, sure, train_vae, vae_loss

BETAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)


def main() -> None:
    train, test = mnist()
    judge = train_judge(train, epochs=3)
    _, real = judge_images(judge, test.pixels())
    rows = {}
    for beta in BETAS:
        row = {"reconstruction": [], "kl": [], "loss": [], "active units": [], "recognised": [], "frechet": []}
        for seed in SEEDS:
            model, _, _ = train_vae(train, seed, loss=partial(beta_loss, beta=beta))
            for name, value in evaluate(model, vae_loss, test).items():
                row[name].append(value)
            p, features = judge_images(judge, decode(model, normal_codes(10_000, 20, seed)))
            row["active units"].append(active_units(encode_all(model, test)))
            row["recognised"].append(sure(p))
            row["frechet"].append(frechet_distance(features, real))
        rows[beta] = {name: mean_sd(values) for name, values in row.items()}
        print(f"β = {beta:<5}", {name: round(v["mean"], 2) for name, v in rows[beta].items()})
    save_result("beta_sweep", {"rows": rows}, seeds=SEEDS, data=train.source)


if __name__ == "__main__":
    main()
