"""Finding the digit that was not in the training, against PCA and an isolation forest.

Ten digits, three seeds; every training has one core to itself.  About 6 minutes.
"""

import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from helpers.metrics.latent_uses import anomaly_scores
from tests.benchmarks.common import SEEDS, mean_sd, mnist, publish, train_vae
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/anomaly",)

LATENT = 20  # dimensions, of the VAE and of PCA


def linear_errors(train: torch.Tensor, test: torch.Tensor, seed: int) -> torch.Tensor:
    """Squared error (N,) of test images (N, 784) through LATENT principal components of `train`."""
    pca = PCA(LATENT, random_state=seed).fit(train.numpy())
    rebuilt = pca.inverse_transform(pca.transform(test.numpy()))
    return (test - torch.from_numpy(rebuilt)).square().sum(1)


def find(job: tuple[int, int]) -> dict[str, float]:
    """{score: AUROC} of one digit, left out of the training, among all test images."""
    digit, seed = job
    train, test = mnist()
    known = train[train.labels != digit]
    model, _, _ = train_vae(known, seed, LATENT)

    x = test.pixels()
    flat = x.flatten(1)
    known_flat = known.pixels().flatten(1)
    scores = anomaly_scores(model.eval(), x, seed)
    scores["PCA reconstruction error"] = linear_errors(known_flat, flat, seed)
    forest = IsolationForest(random_state=seed).fit(known_flat[:10_000].numpy())
    scores["isolation forest"] = torch.from_numpy(-forest.score_samples(flat.numpy()))

    outlier = (test.labels == digit).numpy()
    return {name: float(roc_auc_score(outlier, score.numpy())) for name, score in scores.items()}


def main() -> None:
    jobs = [(digit, seed) for digit in range(10) for seed in SEEDS]
    found = dict(zip(jobs, side_by_side(find, jobs), strict=True))
    digits, means = {}, {}
    for name in found[jobs[0]]:
        by_seed = [[found[digit, seed][name] for digit in range(10)] for seed in SEEDS]
        by_digit = zip(*by_seed, strict=True)
        digits[name] = {str(digit): mean_sd(list(each)) for digit, each in enumerate(by_digit)}
        means[name] = mean_sd([sum(each) / 10 for each in by_seed])
        print(f"{name:<28} {means[name]['mean']:.3f} ± {means[name]['sd']:.3f}")
    values = {"latent": LATENT, "digits": digits, "mean": means}
    publish("anomaly", values, seeds=SEEDS, data=mnist()[0].source)


if __name__ == "__main__":
    main()
