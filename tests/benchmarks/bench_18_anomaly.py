"""Finding the digit that was not in the training: ten digits, three seeds, against PCA and an isolation forest.

About 6 minutes.  Every training has one core to itself.
"""

import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from helpers.latent_uses import strangeness
from helpers.results import save_result
from tests.benchmarks.common import SEEDS, mean_sd, mnist, side_by_side, train_vae

LATENT = 20  # numbers, of the VAE and of PCA


def linear_errors(train: torch.Tensor, test: torch.Tensor, seed: int) -> torch.Tensor:
    """Squared error (N,) of test images (N, 784) through the first LATENT principal components of `train`."""
    pca = PCA(LATENT, random_state=seed).fit(train.numpy())
    rebuilt = pca.inverse_transform(pca.transform(test.numpy()))
    return (test - torch.from_numpy(rebuilt)).square().sum(1)


def find(job: tuple[int, int]) -> dict[str, float]:
    """{score: AUROC} of one digit, left out of the training, among all test images."""
    digit, seed = job
    train, test = mnist()
    known = train[train.labels != digit]
    model, _, _ = train_vae(known, seed, LATENT)
    x, strange = test.pixels(), (test.labels == digit).numpy()
    pixels, flat = known.pixels().flatten(1), x.flatten(1)
    scores = strangeness(model.eval(), x, seed)
    scores["PCA reconstruction error"] = linear_errors(pixels, flat, seed)
    forest = IsolationForest(random_state=seed).fit(pixels[:10_000].numpy())
    scores["isolation forest"] = torch.from_numpy(-forest.score_samples(flat.numpy()))
    return {name: float(roc_auc_score(strange, score.numpy())) for name, score in scores.items()}


def main() -> None:
    jobs = [(digit, seed) for digit in range(10) for seed in SEEDS]
    found = dict(zip(jobs, side_by_side(find, jobs), strict=True))
    names = list(found[jobs[0]])
    digits = {
        name: {str(digit): mean_sd([found[digit, seed][name] for seed in SEEDS]) for digit in range(10)} for name in names
    }
    means = {name: mean_sd([sum(found[d, seed][name] for d in range(10)) / 10 for seed in SEEDS]) for name in names}
    for name, mean in means.items():
        print(f"{name:<28} {mean['mean']:.3f} ± {mean['sd']:.3f}")
    save_result("anomaly", {"latent": LATENT, "digits": digits, "mean": means}, seeds=SEEDS, data=mnist()[0].source)


if __name__ == "__main__":
    main()
