"""What compression costs: four- and eight-fold, 4, 8 and 16 channels, the same minutes each.  About 35 minutes."""

from helpers import train_dogs
from helpers.budget import budget
from helpers.results import save_result

RESOLUTION, MINUTES = 64, budget(quick=0.02, cpu=5.0, gpu=5.0)


def main() -> None:
    rows = []
    for factor in (4, 8):
        for channels in (4, 8, 16):
            words = ["--resolution", RESOLUTION, "--factor", factor, "--latent-channels", channels, "--minutes", MINUTES]
            figures = train_dogs.main([*map(str, words), "--run", f"bench-rates-{factor}-{channels}"])
            rows.append({"factor": factor, "channels": channels} | {k: v for k, v in figures.items() if k != "source"})
    values = {"minutes": MINUTES, "resolution": RESOLUTION, "rows": rows}
    save_result("dog_rates", values, seeds=[0], data=figures["source"])


if __name__ == "__main__":
    main()
