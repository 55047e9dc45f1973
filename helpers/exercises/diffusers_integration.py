"""Checks of notebook 9's exercises; `helpers.exercises.check` says how a check works."""

from collections.abc import Callable

import torch
from torch import nn

from helpers.data.synthetic_dogs import load_synthetic_dogs
from helpers.diffusers_bridge import from_diffusers
from helpers.diffusion.parts import load_tiny_sd
from helpers.diffusion.weight_names import DIFFUSERS, rename
from helpers.env import device
from helpers.exercises.check import close, exercise, expect_shape, reject, reject_mistakes
from helpers.metrics.images import psnr
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.rng import generator_for
from helpers.training.checkpoints import load_shipped


@exercise
def latent_shape(answer: Callable) -> str:
    """answer(latent_channels, block_out_channels, height, width) -> the latents' (C, h, w)."""
    for channels, widths, height, width in (
        (4, (8, 16, 32, 64), 64, 96),
        (6, (16, 32, 64), 96, 64),
        (3, (8,), 24, 40),
    ):
        got, levels = answer(channels, widths, height, width), len(widths)
        reject(
            isinstance(got, tuple),
            f"The answer should be (channels, height, width), and yours is {got!r}.",
        )
        factor = 2 ** (levels - 1)
        truth = (channels, height // factor, width // factor)
        if got != truth:
            reject(got != truth[1:], "The channels are missing: (channels, height, width).")
            reject(got != (channels, truth[2], truth[1]), "You swapped height and width.")
            reject(
                got != (channels, height // 8, width // 8),
                f"8 is Stable Diffusion's factor; {levels} levels make it {factor}.",
            )
            reject(
                got != (channels, height // (2 * factor), width // (2 * factor)),
                f"{levels} levels halve {levels - 1} times: the last level does not.",
            )
            reject(
                got[0] != widths[-1],
                "The latent has `latent_channels` channels, not the last level's width.",
            )
        reject(
            all(isinstance(side, int) for side in got),
            "A shape has whole numbers, and yours has others: divide with //.",
        )
        reject(
            got == truth,
            f"A picture of {height}×{width} with {levels} levels gives {truth}, and you say {got}.",
        )
    return "as the pipeline computes it, for one, three and four levels."


@exercise
def rename_key(answer: Callable) -> str:
    """answer(key) -> the library's name of a weight of the encoder's residual blocks.

    Any other key stays as it is.
    """
    with torch.device("meta"):
        keys = ConvVAE(VAEConfig((8, 16, 16), blocks=2, groups=4)).state_dict()
    count = 0
    for key in keys:
        got = answer(key)
        reject(
            isinstance(got, str), f"For {key} your function returns {got!r}; return the new name."
        )
        if key.startswith("encoder.stages.") and ".blocks." in key:
            count += 1
            truth = next(iter(rename({key: torch.zeros(())}, DIFFUSERS, to_ours=False)))
            reject(got != key, f"{key} should become {truth}, and yours stays as it is.")
            reject(
                got == truth or got != truth.replace("conv_shortcut", "shortcut"),
                f"In the library the shortcut is called conv_shortcut: {truth}.",
            )
            reject(got == truth, f"{key} should become {truth}, and yours becomes {got}.")
        elif got != key:
            stays = f"{key} should stay as it is"
            reject(not key.startswith("decoder."), f"The decoder is not meant: {stays}.")
            reject("resample" not in key, f"A resampling is no residual block: {stays}.")
            reject(False, f"{stays}, and yours becomes {got}.")
    return f"all {count} names, and no other."


@exercise
def linear_dictionary(answer: Callable) -> str:
    """answer(a (N, d), b (N, e)) -> (M (d, e), c (e,)) with a @ M + c nearest to b."""
    generator = generator_for("dictionary")
    spread = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    a = torch.randn(300, 5, generator=generator) * spread + 2
    b = a @ torch.randn(5, 3, generator=generator) + torch.tensor([4.0, -6.0, 1.0])
    b = b + 0.5 * torch.randn(300, 3, generator=generator)

    got = answer(a.clone(), b.clone())
    is_pair = isinstance(got, tuple | list) and len(got) == 2
    reject(is_pair, "The answer should be two tensors, (M, c).")
    matrix, offset = got
    reject(
        tuple(matrix.shape) != (3, 5), "M is turned over: a @ M goes from (N, d) to the space of b."
    )
    expect_shape(matrix, (5, 3), "M")
    through_zero = torch.linalg.lstsq(a, b).solution
    reject_mistakes(
        matrix,
        (through_zero, "You forced the map through 0: add an offset, with a column of ones."),
        rtol=1e-3,
    )
    offset = offset.squeeze()
    expect_shape(offset, (3,), "c")
    reject_mistakes(
        offset, (b.mean(0), "c is mean(b) − mean(a) @ M, not mean(b) alone."), rtol=1e-3
    )

    best = torch.linalg.lstsq(a - a.mean(0), b - b.mean(0)).solution
    least = (a @ best + b.mean(0) - a.mean(0) @ best - b).square().mean().item()
    error = (a @ matrix + offset - b).square().mean().item()
    reject(
        error <= 1.001 * least, f"The least squared error is {least:.4f}, and yours is {error:.4f}."
    )
    return f"squared error {least:.4f}, and no line does better."


@exercise
def measured_scale(answer: Callable) -> str:
    """answer(mean, std (N, C, h, w)) -> 1 / standard deviation of draws from all posteriors."""
    generator = generator_for("scale")
    centres = torch.tensor([1.0, -2.0, 4.0]).view(1, 3, 1, 1)
    mean = 2 * torch.randn(60, 3, 4, 6, generator=generator) + centres
    std = 1 + torch.rand(60, 3, 4, 6, generator=generator)
    got = torch.as_tensor(answer(mean.clone(), std.clone()))
    reject(got.numel() == 1, f"One number for the whole latent, and yours are {got.numel()}.")

    got = got.flatten()[0]
    noise = std.square().mean()
    truth = 1 / (mean.var(correction=0) + noise).sqrt()
    by_channel = 1 / (mean.var(dim=(0, 2, 3)).mean() + noise).sqrt()
    without_means = "You left the means out."
    reject_mistakes(
        got,
        (1 / truth, "Upside down: the factor makes the spread 1, so it is 1 / spread."),
        (1 / mean.std(), "You left the noise out: draws spread wider than means."),
        (1 / std.mean(), without_means),
        (1 / noise.sqrt(), without_means),
        (1 / (mean.std() + std.mean()), "Spreads do not add up; variances do."),
        (truth**2, "You divided by the variance; divide by its root."),
        (
            by_channel,
            "You took each channel's own mean off; the spread is that of all values together.",
        ),
        rtol=2e-3,
    )
    reject(
        close(got, truth, 0.02), f"Draws from these posteriors give {truth:.4f}, and you {got:.4f}."
    )
    return f"{got:.3f}: multiplied by it, the latents have a spread of 1."


@exercise
def blend(answer: Callable) -> str:
    """answer(left (B, C, H, V), right (B, C, H, W), overlap) -> (B, C, H, V + W - overlap).

    In column i = 1 … overlap of the overlap the right one has the share i / (overlap + 1).
    """
    got = answer(torch.zeros(1, 2, 3, 6), torch.ones(1, 2, 3, 9), 4)
    reject(
        tuple(getattr(got, "shape", ())) != (1, 2, 3, 15),
        "You laid them side by side: let them overlap.",
    )
    expect_shape(got, (1, 2, 3, 11), "The picture")
    row = got[0, 0, 0]
    reject(
        close(row[:2], torch.zeros(2)) and close(row[6:], torch.ones(5)),
        "Outside the overlap each should stay as it is.",
    )
    share = row[2:6]
    reject_mistakes(
        share,
        (
            torch.arange(4, 0, -1) / 5,
            "Turned round: next to the left picture its own share is the larger one.",
        ),
        (
            torch.linspace(0, 1, 4),
            "At the ends of the overlap one picture has no share: take i / (overlap + 1).",
        ),
    )
    reject(
        len(share.unique()) > 1, "The share of the right picture should grow from column to column."
    )

    generator = generator_for("blend")
    left = torch.randn(2, 3, 2, 5, generator=generator)
    right = torch.randn(2, 3, 2, 4, generator=generator)
    got, share = answer(left.clone(), right.clone(), 3), torch.arange(1, 4) / 4
    mixed = (1 - share) * left[..., 2:] + share * right[..., :3]
    truth = torch.cat([left[..., :2], mixed, right[..., 3:]], dim=3)
    expect_shape(got, tuple(truth.shape), "The picture")
    reject(
        close(got, truth),
        "Column by column: (1 − share) · left + share · right, the left one's last columns first.",
    )
    return "no edge where they meet."


@exercise
def my_cure(answer: Callable) -> str:
    """answer(old, mine) -> a ConvVAE whose decoder reads old's latents."""
    old = from_diffusers(load_tiny_sd().vae).to(device())
    mine = load_shipped(ConvVAE, "drawn_dogs_vae").to(device())
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    cured = answer(old, mine)
    reject(
        isinstance(cured, nn.Module), f"Return the cured VAE; yours is a {type(cured).__name__}."
    )
    reject(
        all(torch.equal(value, before[name]) for name, value in mine.state_dict().items()),
        "You changed `mine` itself: "
        "work on copy.deepcopy(mine), and the comparison stays possible.",
    )
    reject(
        not _shares_decoder(cured, old),
        "That is the pipeline's own decoder: the cure is to be of `mine`.",
    )

    dogs = load_synthetic_dogs(48, 64, "validation", pose="sitting").pixels()
    with torch.no_grad():
        latents = old.encode(dogs.to(device())).mode()

    def quality(vae: ConvVAE) -> float:
        """Mean PSNR in dB of what a decoder makes of the old latents."""
        with torch.no_grad():
            return psnr(vae.decode(latents).clamp(0, 1).cpu(), dogs).mean().item()

    naive, found = quality(mine), quality(cured)
    reject(
        found > naive + 0.01,
        f"The old latents come back at {found:.1f} dB, no better than before: {naive:.1f} dB.",
    )
    reject(
        found >= naive + 3,
        f"The old latents come back at {found:.1f} dB; "
        f"{naive + 3:.1f} dB would be 3 dB above the naive swap.",
    )
    return (
        f"{naive:.1f} dB before, {found:.1f} dB now. "
        f"How near to {quality(old):.1f} dB, the old decoder's, can you come?"
    )


def _shares_decoder(cured: nn.Module, old: ConvVAE) -> bool:
    """Whether a decoder is `old`'s: the same weights in memory, or all of the same values."""
    given = {weight.data_ptr() for weight in old.decoder.parameters()}
    if any(weight.data_ptr() in given for weight in cured.decoder.parameters()):
        return True
    pairs = zip(cured.decoder.parameters(), old.decoder.parameters(), strict=False)
    equal = [torch.equal(a, b) for a, b in pairs]
    return bool(equal) and all(equal)
