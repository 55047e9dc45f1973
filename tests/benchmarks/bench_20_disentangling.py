"""β-VAE on drawn dogs: how well single latent numbers tell single factors, and what that costs.  About 15 minutes."""

from functools import partial

from helpers.budget import budget, generator_for, seed_everything
from helpers.drawn_dogs import load_drawn_dogs
from helpers.metrics import encode_all, mutual_information_gap
from helpers.results import describe_device, save_result
from helpers.training import evaluate, fit
from helpers.variants import DrawingVAE
from tests.benchmarks.common import SEEDS, beta_loss, over_seeds, side_by_side, vae_loss

BETAS = budget(quick=(1.0, 8.0), cpu=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0), gpu=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0))
DOGS, EPOCHS = budget(quick=(96, 1), cpu=(9600, 30), gpu=(9600, 30))
FACTORS = ("coat", "ears", "ground", "pose", "mirrored")


def measure(job: tuple[float, int]) -> dict[str, float]:
    """Train with one β and one seed; the gaps of held-out dogs, and reconstruction and KL in nats per image."""
    beta, seed = job
    train, test = load_drawn_dogs(DOGS, 32), load_drawn_dogs(budget(quick=96, cpu=2880, gpu=2880), 32, "test")
    seed_everything(seed)
    model = DrawingVAE()
    fit(model, partial(beta_loss, beta=beta), train, epochs=EPOCHS, batch_size=64, lr=1e-3, seed=seed)
    model.eval()
    codes = encode_all(model, test, generator=generator_for("codes", seed))
    gaps = mutual_information_gap(codes, {name: test.factors[name] for name in FACTORS})
    scores = evaluate(model, vae_loss, test)
    return gaps | {"mean gap": sum(gaps.values()) / len(gaps)} | {name: scores[name] for name in ("reconstruction", "kl")}


def main() -> None:
    jobs = [(beta, seed) for beta in BETAS for seed in SEEDS]
    found = dict(zip(jobs, side_by_side(measure, jobs), strict=True))
    rows = {f"{beta:g}": over_seeds([found[beta, seed] for seed in SEEDS]) for beta in BETAS}
    values = {"on": describe_device(), "dogs": DOGS, "epochs": EPOCHS, "rows": rows}
    save_result("disentangling", values, seeds=SEEDS, data="drawn dogs, embedded")


if __name__ == "__main__":
    main()
