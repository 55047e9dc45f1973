"""Three recipes on the same dogs, the same cores, the same minutes; three seeds.  About 55 minutes.

Each has its own network, loss, rate and loop; 64 px, eight-fold reduction, 4 channels.
"""

from helpers.budget import budget
from helpers.data import load_dogs
from helpers.image_metrics import BlockPCA, latent_statistics, psnr, reconstruct
from helpers.results import save_result
from tests.benchmarks.common import SEEDS, mean_sd
from tests.benchmarks.dog_recipes import (
    RECIPES,
    course_model,
    posterior_published,
    reconstruct_published,
    train_ours,
    train_published,
)

RESOLUTION, FACTOR, MINUTES = 64, 8, budget(quick=0.02, cpu=5.0, gpu=5.0)


def main() -> None:
    train, test = load_dogs(RESOLUTION, "train"), load_dogs(RESOLUTION, "test")
    rows: dict[str, dict[str, list]] = {}
    for seed in SEEDS:
        for name in ("ours", *RECIPES):  # in turn, so that a slow hour hits all of them
            if name == "ours":
                model, images = train_ours(train, MINUTES, seed, course_model(seed, factor=FACTOR))
                decoded, latents = reconstruct(model, test), latent_statistics(model, test)
                posterior = {"kl": latents.kl.sum().item(), "noise": latents.noise.mean().item()}
            else:
                model, images = train_published(name, train, 60 * MINUTES, seed)
                decoded, posterior = reconstruct_published(model, test), posterior_published(model, test)
            found = {"psnr": psnr(decoded, test.pixels()).mean().item(), "images": images} | posterior
            for key, value in found.items():
                rows.setdefault(name, {}).setdefault(key, []).append(value)
            print(f"seed {seed}  {name:10}", "  ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)
    linear = psnr(BlockPCA(train, FACTOR, 4).reconstruct(test.pixels()), test.pixels()).mean().item()
    values = {"minutes": MINUTES, "resolution": RESOLUTION, "factor": FACTOR, "block_pca_psnr": linear}
    values["rows"] = {name: {key: mean_sd(each) for key, each in row.items()} for name, row in rows.items()}
    save_result("dog_recipes", values, seeds=SEEDS, data=test.source)


if __name__ == "__main__":
    main()
