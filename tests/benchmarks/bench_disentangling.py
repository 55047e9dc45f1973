"""β-VAE on synthetic ("drawn") dogs: how well single latent dimensions tell single factors.

And what that costs.  Three seeds.  About 15 minutes.
"""

from functools import partial

from helpers.data.synthetic_dogs import load_synthetic_dogs
from helpers.env import budget
from helpers.metrics.latents import encode_all, mutual_information_gap
from helpers.models.variants import DrawingVAE
from helpers.results import describe_device
from helpers.rng import generator_for, seed_everything
from helpers.training.loop import evaluate, fit
from tests.benchmarks.common import SEEDS, beta_loss, over_seeds, publish, vae_loss
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/disentangling",)

ALL_BETAS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
BETAS = budget(quick=(1.0, 8.0), cpu=ALL_BETAS, gpu=ALL_BETAS)
DOGS = budget(quick=96, cpu=9600, gpu=9600)
TEST_DOGS = budget(quick=96, cpu=2880, gpu=2880)
EPOCHS = budget(quick=1, cpu=30, gpu=30)
FACTORS = ("coat", "ears", "ground", "pose", "mirrored")


def measure(job: tuple[float, int]) -> dict[str, float]:
    """The gaps of held-out dogs after a training, and reconstruction and KL in nats per image."""
    beta, seed = job
    train = load_synthetic_dogs(DOGS, 32)
    test = load_synthetic_dogs(TEST_DOGS, 32, "test")
    seed_everything(seed)
    model = DrawingVAE()
    loss = partial(beta_loss, beta=beta)
    fit(model, loss, train, epochs=EPOCHS, batch_size=64, lr=1e-3, seed=seed)

    model.eval()
    codes = encode_all(model, test, generator=generator_for("codes", seed))
    gaps = mutual_information_gap(codes, {name: test.factors[name] for name in FACTORS})
    scores = evaluate(model, vae_loss, test)
    return {
        **gaps,
        "mean gap": sum(gaps.values()) / len(gaps),
        "reconstruction": scores["reconstruction"],
        "kl": scores["kl"],
    }


def main() -> None:
    jobs = [(beta, seed) for beta in BETAS for seed in SEEDS]
    found = dict(zip(jobs, side_by_side(measure, jobs), strict=True))
    rows = {f"{beta:g}": over_seeds([found[beta, seed] for seed in SEEDS]) for beta in BETAS}
    values = {"on": describe_device(), "dogs": DOGS, "epochs": EPOCHS, "rows": rows}
    publish("disentangling", values, seeds=SEEDS, data="drawn dogs, embedded")


if __name__ == "__main__":
    main()
