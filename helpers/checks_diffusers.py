"""Checks of notebook 06's exercises; `helpers.checks` says how a check works."""

from collections.abc import Callable

import torch
from torch import nn

from helpers.budget import device, generator_for
from helpers.checkpoints import load_shipped
from helpers.checks import close, exercise, expect_shape, reject
from helpers.conv_vae import ConvVAE, VAEConfig, to_signed, to_unit
from helpers.diffusers_bridge import from_diffusers
from helpers.drawn_dogs import load_drawn_dogs
from helpers.image_metrics import psnr
from helpers.tiny_sd import load_tiny_sd
from helpers.weight_names import DIFFUSERS, rename


@exercise
def latent_shape(answer: Callable) -> str:
    """answer(latent_channels, block_out_channels, height, width) -> (channels, height, width) of the latents."""
    for channels, widths, height, width in ((4, (8, 16, 32, 64), 64, 96), (6, (16, 32, 64), 96, 64), (3, (8,), 24, 40)):
        got, factor = answer(channels, widths, height, width), 2 ** (len(widths) - 1)
        reject(isinstance(got, tuple), f"The answer should be (channels, height, width), and yours is {got!r}.")
        truth = (channels, height // factor, width // factor)
        reject(got != truth[1:], "The channels are missing: (channels, height, width).")
        reject(got != (channels, truth[2], truth[1]), "You swapped height and width.")
        eight = (channels, height // 8, width // 8)
        reject(got == truth or got != eight, f"8 is Stable Diffusion's factor; {len(widths)} levels make it {factor}.")
        one_more = (channels, height // (2 * factor), width // (2 * factor))
        reject(got != one_more, f"{len(widths)} levels halve {len(widths) - 1} times: the last level does not.")
        reject(got[0] != widths[-1] or got == truth, "The latent has `latent_channels` channels, not the last level's width.")
        whole = all(isinstance(side, int) for side in got)
        reject(whole, "A shape has whole numbers, and yours has others: divide with //.")
        reject(got == truth, f"A picture of {height}×{width} with {len(widths)} levels gives {truth}, and you say {got}.")
    return "as the pipeline computes it, for one, three and four levels."


@exercise
def rename_key(answer: Callable) -> str:
    """answer(key) -> the library's name of a weight of an encoder's residual block; any other key as it is."""
    with torch.device("meta"):
        keys = ConvVAE(VAEConfig((8, 16, 16), blocks=2, groups=4)).state_dict()
    for key in keys:
        got = answer(key)
        reject(isinstance(got, str), f"For {key} your function returns {got!r}; return the new name.")
        if key.startswith("encoder.stages.") and ".blocks." in key:
            truth = next(iter(rename({key: torch.zeros(())}, DIFFUSERS, to_ours=False)))
            reject(got != key, f"{key} should become {truth}, and yours stays as it is.")
            without = truth.replace("conv_shortcut", "shortcut")
            reject(got == truth or got != without, f"In the library the shortcut is called conv_shortcut: {truth}.")
            reject(got == truth, f"{key} should become {truth}, and yours becomes {got}.")
        elif got != key:
            reject(not key.startswith("decoder."), f"The decoder is not meant: {key} should stay as it is.")
            reject("resample" not in key, f"A resampling is no residual block: {key} should stay as it is.")
            reject(False, f"{key} should stay as it is, and yours becomes {got}.")
    return f"all {sum('.blocks.' in key and key.startswith('encoder') for key in keys)} names, and no other."


@exercise
def linear_dictionary(answer: Callable) -> str:
    """answer(a (N, d), b (N, e)) -> (M (d, e), c (e,)) with a @ M + c nearest to b."""
    generator = generator_for("dictionary")
    a = torch.randn(300, 5, generator=generator) * torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0]) + 2
    b = a @ torch.randn(5, 3, generator=generator) + torch.tensor([4.0, -6.0, 1.0])
    b = b + 0.5 * torch.randn(300, 3, generator=generator)
    got = answer(a.clone(), b.clone())
    reject(isinstance(got, tuple | list) and len(got) == 2, "The answer should be two tensors, (M, c).")
    matrix, offset = got
    reject(tuple(matrix.shape) != (3, 5), "M is turned over: a @ M goes from (N, d) to the space of b.")
    expect_shape(matrix, (5, 3), "M")
    centred = torch.linalg.lstsq(a - a.mean(0), b - b.mean(0)).solution
    best = centred, b.mean(0) - a.mean(0) @ centred
    through_zero = torch.linalg.lstsq(a, b).solution
    reject(not close(matrix, through_zero, 1e-3), "You forced the map through 0: add an offset, with a column of ones.")
    expect_shape(offset.squeeze(), (3,), "c")
    reject(not close(offset.squeeze(), b.mean(0), 1e-3), "c is mean(b) − mean(a) @ M, not mean(b) alone.")
    errors = [(a @ m + c - b).square().mean().item() for m, c in ((matrix, offset.squeeze()), best)]
    reject(errors[0] <= 1.001 * errors[1], f"The least squared error is {errors[1]:.4f}, and yours is {errors[0]:.4f}.")
    return f"squared error {errors[1]:.4f}, and no line does better."


@exercise
def measured_scale(answer: Callable) -> str:
    """answer(mean, std (N, C, h, w) of posteriors) -> 1 / standard deviation of draws from all of them together."""
    generator = generator_for("scale")
    mean = 2 * torch.randn(60, 3, 4, 6, generator=generator) + torch.tensor([1.0, -2.0, 4.0]).view(1, 3, 1, 1)
    std = 1 + torch.rand(60, 3, 4, 6, generator=generator)
    got = torch.as_tensor(answer(mean.clone(), std.clone()))
    truth = 1 / (mean.var(correction=0) + std.square().mean()).sqrt()
    reject(got.numel() == 1, f"One number for the whole latent, and yours are {got.numel()}.")
    got = float(got)

    def near(other) -> bool:
        return abs(got / float(other) - 1) < 2e-3

    reject(not near(1 / truth), "Upside down: the factor makes the spread 1, so it is 1 / spread.")
    reject(not near(1 / mean.std()), "You left the noise out: draws spread wider than means.")
    reject(not near(1 / std.mean()) and not near(1 / std.square().mean().sqrt()), "You left the means out.")
    reject(not near(1 / (mean.std() + std.mean())), "Spreads do not add up; variances do.")
    reject(not near(truth**2), "You divided by the variance; divide by its root.")
    by_channel = 1 / (mean.var(dim=(0, 2, 3)).mean() + std.square().mean()).sqrt()
    reject(not near(by_channel), "You took each channel's own mean off; the spread is that of all numbers together.")
    reject(abs(got / float(truth) - 1) < 0.02, f"Draws from these posteriors give {float(truth):.4f}, and you {got:.4f}.")
    return f"{got:.3f}: multiplied by it, the latents have a spread of 1."


@exercise
def blend(answer: Callable) -> str:
    """answer(left (B, C, H, V), right (B, C, H, W), overlap) -> one picture (B, C, H, V + W - overlap).

    In column i = 1 … overlap of the overlap the right one has the share i / (overlap + 1).
    """
    got = answer(torch.zeros(1, 2, 3, 6), torch.ones(1, 2, 3, 9), 4)
    reject(got is not None and tuple(got.shape) != (1, 2, 3, 15), "You laid them side by side: let them overlap.")
    expect_shape(got, (1, 2, 3, 11), "The picture")
    row = got[0, 0, 0]
    reject(close(row[:2], torch.zeros(2)) and close(row[6:], torch.ones(5)), "Outside the overlap each should stay as it is.")
    shares = torch.arange(1, 5) / 5
    reject(not close(row[2:6], shares.flip(0)), "Turned round: next to the left picture its own share is the larger one.")
    reject(len(row[2:6].unique()) > 1, "The share of the right picture should grow from column to column.")
    ends = torch.linspace(0, 1, 4)
    reject(not close(row[2:6], ends), "At the ends of the overlap one picture has no share: take i / (overlap + 1).")
    generator = generator_for("blend")
    left, right = (torch.randn(2, 3, 2, width, generator=generator) for width in (5, 4))
    got, share = answer(left.clone(), right.clone(), 3), torch.arange(1, 4) / 4
    mixed = (1 - share) * left[..., 2:] + share * right[..., :3]
    truth = torch.cat([left[..., :2], mixed, right[..., 3:]], dim=3)
    expect_shape(got, tuple(truth.shape), "The picture")
    reject(close(got, truth), "Column by column: (1 − share) · left + share · right, the left one's last columns first.")
    return "no edge where they meet."


@exercise
def my_cure(answer: Callable) -> str:
    """answer(old, mine) -> a ConvVAE whose decoder reads old's latents."""
    old, mine = from_diffusers(load_tiny_sd().vae).to(device()), load_shipped(ConvVAE, "drawn_dogs_vae").to(device())
    dogs = load_drawn_dogs(48, 64, "validation", pose="sitting")
    on = next(old.parameters()).device
    x = to_signed(dogs.pixels(on))
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    cured = answer(old, mine)
    reject(isinstance(cured, nn.Module), f"Return the cured VAE; yours is a {type(cured).__name__}.")
    untouched = all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())
    reject(untouched, "You changed `mine` itself: work on copy.deepcopy(mine), and the comparison stays possible.")
    given = {weight.data_ptr() for weight in old.decoder.parameters()}
    theirs = [torch.equal(a, b) for a, b in zip(cured.decoder.parameters(), old.decoder.parameters(), strict=False)]
    same = bool(theirs) and all(theirs) or any(weight.data_ptr() in given for weight in cured.decoder.parameters())
    reject(not same, "That is the pipeline's own decoder: the cure is to be of `mine`.")

    @torch.no_grad()
    def quality(vae: ConvVAE) -> float:
        decoded = to_unit(vae.decode(old.encode(x).mode())).clamp(0, 1).cpu()
        return psnr(decoded, dogs.pixels()).mean().item()

    naive, found = quality(mine), quality(cured)
    wanted = naive + 3
    reject(found > naive + 0.01, f"The old latents come back at {found:.1f} dB, no better than before: {naive:.1f} dB.")
    reject(found >= wanted, f"The old latents come back at {found:.1f} dB; {wanted:.1f} dB would be 3 dB above the naive swap.")
    return f"{naive:.1f} dB before, {found:.1f} dB now. How near to {quality(old):.1f} dB, the old decoder's, can you come?"
