"""What the checks of random answers share: is it normal noise, independent, from the generator?"""

from collections.abc import Callable

import torch

from helpers.exercises.check import reject
from helpers.rng import generator_for


def expect_normal(noise: torch.Tensor, axes: tuple[str, ...], biased: str, spread: str) -> None:
    """Reject `noise` that is not standard normal, or not drawn anew along each of its axes.

    axes: what the entries of each axis are, in the plural: ("images", "rows", "columns").
    biased, spread: the sentences for a mean that is not 0, and for a standard deviation that is
    not 1; {} stands for what was found.
    """
    for axis, entries in enumerate(axes):
        same = (noise - noise.narrow(axis, 0, 1)).abs().max().item() < 1e-3
        reject(
            not same,
            f"All {entries} got the same noise: draw it with the shape of the whole tensor.",
        )
    count = noise.numel()
    mean, std = noise.mean().item(), noise.std().item()
    reject(abs(mean) < 5 * count**-0.5, biased.format(f"{mean:.3f}"))
    reject(abs(std - 1) < 5 * (2 * count) ** -0.5, spread.format(f"{std:.3f}"))
    far = (noise.abs() > 2).float().mean().item()  # 4.55 % of a normal distribution
    reject(
        abs(far - 0.0455) < 5 * (0.0455 / count) ** 0.5,
        f"Mean and spread are right, but that is not a normal distribution: {far:.1%} of the noise "
        "lies beyond two standard deviations, and not 4.6 % (torch.randn).",
    )
    for axis, entries in enumerate(axes):
        one, next_one = (
            noise.narrow(axis, 0, noise.shape[axis] - 1),
            noise.narrow(axis, 1, noise.shape[axis] - 1),
        )
        together = (one * next_one).mean().item()
        reject(
            abs(together) < 5 * one.numel() ** -0.5,
            f"The noise of neighbouring {entries} goes together: draw every number anew.",
        )


def expect_generator(draw: Callable[[torch.Generator], torch.Tensor]) -> None:
    """Reject a `draw` that does not depend on the generator alone."""
    one, again, other = (draw(generator_for("drawn", key)) for key in ("a", "a", "b"))
    reject(
        torch.equal(one, again),
        "You did not use `generator`: given the same one twice, your function drew other numbers.",
    )
    reject(not torch.equal(one, other), "You did not use `generator`: another one changes nothing.")
