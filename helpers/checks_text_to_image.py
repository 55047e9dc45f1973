"""Checks of notebook 07's exercises; `helpers.checks` says how a check works."""

from collections.abc import Callable

import torch

from helpers.budget import device, generator_for
from helpers.checkpoints import load_shipped
from helpers.checks import close, exercise, expect_shape, reject
from helpers.diffusion import diffuse
from helpers.dog_judge import COMBINATIONS, DogJudge, adherence
from helpers.drawn_dogs import caption
from helpers.tiny_sd import load_tiny_sd, make_scheduler


@exercise
def most_frequent_pair(answer: Callable) -> str:
    """answer(words: {word: count}) -> the two neighbouring letters that stand together most often."""
    words = {"ldld": 4, "gold": 1, "snow": 6, "own": 1, "dog": 1, "dot": 1, "doe": 1, "don": 1}
    got = answer(dict(words))
    reject(got is not None, "Your function returns nothing: end it with `return`.")
    reject(got != "ld", "Return the two letters as a pair: ('l', 'd').")
    reject(got != ("d", "l"), "The order counts: first letter, second letter.")
    reject(got != ("d", "o"), "Each word counts as often as it occurs: add words[word].")  # d-o is in four words
    reject(got != ("o", "w"), "A pair may stand in one word more than once: 'ldld' has l-d twice.")  # o-w: 7
    reject(tuple(got) == ("l", "d"), f"In {words} l and d stand together 9 times, more than any other pair; you say {got}.")
    other = {"snow": 5, "now": 4, "own": 2}
    reject(tuple(answer(dict(other))) == ("o", "w"), f"In {other} it is ('o', 'w'), and you say {answer(dict(other))}.")
    return "the pair that byte pair encoding would join first."


@exercise
def variance_kept(answer: Callable) -> str:
    """answer(betas (T,)) -> the share of the latent's variance that is left after each step, (T,)."""
    betas = torch.tensor([0.1, 0.2, 0.5, 0.3])
    got = answer(betas.clone())
    expect_shape(got, (4,), "The answer")
    reject(not close(got, 1 - betas), "That is what each step alone leaves; the steps multiply.")
    reject(not close(got, betas.cumprod(0)), "You multiplied what goes; what stays is 1 − β.")
    reject(not close(got, 1 - betas.cumsum(0)), "You subtracted; every step takes its share of what is left.")
    reject(not close(got, (1 - betas).cumprod(0).sqrt()), "That is the factor of the latent; its variance is the square.")
    reject(close(got, (1 - betas).cumprod(0)), f"For {betas.tolist()} it is {(1 - betas).cumprod(0).tolist()}.")
    kept = make_scheduler()
    reject(close(answer(kept.betas), kept.alphas_cumprod, 1e-3), "Right for four steps; not for a thousand.")
    return "the library's `alphas_cumprod`."


def _noisy() -> tuple[torch.Tensor, ...]:
    """(latents, noise, kept (B,), noisy), (B, C, h, w) not square."""
    latents, noise = (torch.randn(3, 2, 4, 5, generator=generator_for("diffusion", name)) for name in ("z", "noise"))
    kept = torch.tensor([0.9, 0.5, 0.1])
    return latents, noise, kept, diffuse(latents, noise, kept)


@exercise
def remove_noise(answer: Callable) -> str:
    """answer(noisy, noise (B, C, h, w), kept (B,)) -> the latents that were noised."""
    latents, noise, kept, noisy = _noisy()
    got, share = answer(noisy.clone(), noise.clone(), kept.clone()), kept.view(-1, 1, 1, 1)
    expect_shape(got, tuple(latents.shape), "The answer")
    reject(not close(got, noisy - noise), "The noise was not added as it is: it was multiplied by √(1 − kept).")
    reject(not close(got, noisy - (1 - share).sqrt() * noise), "The noise is gone; what is left is √kept · latents: divide.")
    reject(not close(got, (noisy - (1 - share) * noise) / share), "Roots: `kept` is a share of variance.")
    reject(not close(got, (noisy - (1 - share).sqrt() * noise) / share), "Divide by the root of `kept`.")
    reject(not close(got, (noisy - share.sqrt() * noise) / (1 - share).sqrt()), "`kept` belongs to the latents, 1 − kept to the noise.")
    reject(close(got, latents, 1e-3), f"The first latent is {latents.flatten()[0]:.4f}, and yours is {got.flatten()[0]:.4f}.")
    return "from noisy latents and their noise the clean ones follow."


@exercise
def ddim_step(answer: Callable) -> str:
    """answer(noisy, noise (B, C, h, w), now, after (B,)) -> the same latents with the same noise, at the share `after`."""
    latents, noise, now, noisy = _noisy()
    after = torch.tensor([0.95, 0.7, 0.3])
    got = answer(noisy.clone(), noise.clone(), now.clone(), after.clone())
    expect_shape(got, tuple(latents.shape), "The answer")
    reject(not close(got, latents, 1e-3), "You took all the noise off; one step takes only some: add √(1 − after) of it again.")
    reject(not close(got, noisy, 1e-3), "Nothing has changed: noise the clean latents with `after`, not with `now`.")
    share = after.view(-1, 1, 1, 1)
    unscaled = latents + (1 - share).sqrt() * noise
    reject(not close(got, unscaled, 1e-3), "The latents have their share too: √after.")
    truth = diffuse(latents, noise, after)
    wrong_root = share * latents + (1 - share) * noise
    reject(not close(got, wrong_root, 1e-3), "Roots: `after` is a share of variance.")
    reject(close(got, truth, 1e-3), f"The first value is {truth.flatten()[0]:.4f}, and yours is {got.flatten()[0]:.4f}.")
    return "one step of DDIM (Song, Meng & Ermon 2021, equation 12, without fresh noise)."


@exercise
def guide(answer: Callable) -> str:
    """answer(without, with_prompt (B, C, h, w), guidance) -> the noise to take off."""
    without, with_prompt = (torch.randn(2, 3, 4, 5, generator=generator_for("guide", name)) for name in "ab")
    got = answer(without.clone(), with_prompt.clone(), 3.0)
    expect_shape(got, (2, 3, 4, 5), "The answer")
    apart = with_prompt - without
    reject(not close(got, with_prompt + 3 * apart), "One too much: at guidance 1 the answer is the one with the prompt.")
    reject(not close(got, with_prompt - 3 * apart), "Wrong way: walk from «without» towards «with», and on beyond it.")
    reject(not close(got, without - 3 * apart), "Wrong way: walk from «without» towards «with», and on beyond it.")
    reject(not close(got, (without + 3 * with_prompt) / 4), "That is a mean; guidance goes beyond the prediction with the prompt.")
    reject(not close(got, 3 * with_prompt), "The prediction without the prompt is not used.")
    reject(close(got, without + 3 * apart), "At guidance g: without + g · (with − without).")
    return "at 0 the prompt is ignored, at 1 it is followed, above it is exaggerated."


@exercise
def draw_quickly(answer: Callable) -> str:
    """answer(pipeline, prompts) -> pictures (N, 3, 64, 64) in [0, 1], with at most 16 guesses of the noise for each."""
    pipeline, prompts = load_tiny_sd().to(device()), [caption(*combination) for combination in COMBINATIONS[::2]]
    asked = []  # the batch size of each call
    pipeline.unet.register_forward_hook(
        lambda _, args, kwargs, out: asked.append(len(args[0] if args else kwargs["sample"])), with_kwargs=True
    )
    got = answer(pipeline, list(prompts))
    reject(not isinstance(got, torch.Tensor) or got.min() >= -0.01, "Pictures are in [0, 1], and yours go below 0.")
    expect_shape(got, (len(prompts), 3, 64, 64), "The pictures")
    guesses = sum(asked) / len(prompts)
    reject(guesses > 0, "The UNet was not asked at all; draw with the pipeline that you are given.")
    reject(guesses <= 16, f"You asked for {guesses:.0f} guesses a picture; 16 are allowed: eight steps with guidance.")
    right = adherence(load_shipped(DogJudge, "dog_judge"), got.float().cpu(), prompts)["all three"]
    reject(right >= 0.9, f"{right:.0%} of the pictures show all that was asked for; at least 90% should.")
    return f"{guesses:.0f} guesses a picture, {right:.0%} right. Does it work with fewer?"
