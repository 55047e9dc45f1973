"""10,000 samples each of a VAE and of an autoencoder of the same size, judged; three seeds.  About 2 minutes."""

from helpers.budget import generator_for
from helpers.metrics import GaussianCodes, bootstrap_interval, encode_all, frechet_distance, judge_images, train_judge
from helpers.results import save_result
from tests.benchmarks.common import SEEDS, decode, mean_sd, mnist, normal_codes, sure, train_autoencoder, train_vae

COUNT = 10_000


def main() -> None:
    train, test = mnist()
    judge = train_judge(train, epochs=3)
    probabilities, real = judge_images(judge, test.pixels())
    accuracy = (probabilities.argmax(1) == test.labels).float().mean().item()
    rows: dict[str, dict[str, list]] = {}

    def note(name: str, images) -> None:
        p, features = judge_images(judge, images)
        row = rows.setdefault(name, {"recognised": [], "frechet": [], "interval": []})
        row["recognised"].append(sure(p))
        row["frechet"].append(frechet_distance(features, real))
        row["interval"].append(bootstrap_interval(frechet_distance, features, real, repeats=100))
        print(f"{name:<36} recognised {row['recognised'][-1]:.3f}  Fréchet {row['frechet'][-1]:7.1f}  {row['interval'][-1]}")

    note("real training digits", train[:COUNT].pixels())
    for seed in SEEDS:
        noise = normal_codes(COUNT, 20, seed)
        vae, _, _ = train_vae(train, seed)
        autoencoder = train_autoencoder(train, seed)
        note("VAE, N(0, I)", decode(vae, noise))
        note("autoencoder, N(0, I)", decode(autoencoder, noise))
        fitted = GaussianCodes(encode_all(autoencoder, train))
        note("autoencoder, fitted Gaussian", decode(autoencoder, fitted.sample(COUNT, generator_for("fitted", seed))))
    values = {"judge accuracy": accuracy, "real recognised": sure(probabilities)}
    values["rows"] = {
        name: {
            k: (mean_sd(v) if len(v) > 1 else {"mean": v[0], "each": v}) if k != "interval" else v for k, v in row.items()
        }
        for name, row in rows.items()
    }
    save_result("samples_20d", values, seeds=SEEDS, data=train.source)


if __name__ == "__main__":
    main()
