"""Checks of notebook 10's exercises; `helpers.exercises.check` says how a check works."""

from collections.abc import Callable

import torch

from helpers.classifiers.dogs import COMBINATIONS, DogClassifier, prompt_accuracy
from helpers.data.synthetic_dogs import caption
from helpers.diffusion.latents import add_noise
from helpers.diffusion.parts import load_tiny_sd, make_noise_scheduler
from helpers.env import device
from helpers.exercises.check import close, exercise, expect_shape, reject, reject_mistakes
from helpers.rng import generator_for
from helpers.training.checkpoints import load_shipped


@exercise
def most_frequent_pair(answer: Callable) -> str:
    """answer(words: {word: count}) -> the two neighbouring letters found together most often."""
    words = {"ldld": 4, "gold": 1, "snow": 6, "own": 1, "dog": 1, "dot": 1, "doe": 1, "don": 1}
    got = answer(dict(words))
    reject(got is not None, "Your function returns nothing: end it with `return`.")
    for mistake, sentence in (
        ("ld", "Return the two letters as a pair: ('l', 'd')."),
        (("d", "l"), "The order counts: first letter, second letter."),
        # d-o is in four words
        (("d", "o"), "Each word counts as often as it occurs: add words[word]."),
        # o-w: 7
        (("o", "w"), "A pair may stand in one word more than once: 'ldld' has l-d twice."),
    ):
        reject(got != mistake, sentence)
    reject(
        tuple(got) == ("l", "d"),
        f"In {words} l and d stand together 9 times, more than any other pair; you say {got}.",
    )
    other = {"snow": 5, "now": 4, "own": 2}
    got = answer(dict(other))
    reject(tuple(got) == ("o", "w"), f"In {other} it is ('o', 'w'), and you say {got}.")
    return "the pair that byte pair encoding would join first."


@exercise
def alphas_cumprod(answer: Callable) -> str:
    """answer(betas (T,)) -> the share of the latent's variance left after each step, (T,)."""
    betas = torch.tensor([0.1, 0.2, 0.5, 0.3])
    truth = (1 - betas).cumprod(0)
    got = answer(betas.clone())
    expect_shape(got, (4,), "The answer")
    reject_mistakes(
        got,
        (1 - betas, "That is what each step alone leaves; the steps multiply."),
        (betas.cumprod(0), "You multiplied what goes; what stays is 1 − β."),
        (1 - betas.cumsum(0), "You subtracted; every step takes its share of what is left."),
        (truth.sqrt(), "That is the factor of the latent; its variance is the square."),
    )
    reject(close(got, truth), f"For {betas.tolist()} it is {truth.tolist()}.")
    scheduler = make_noise_scheduler()
    reject(
        close(answer(scheduler.betas), scheduler.alphas_cumprod, 1e-3),
        "Right for four steps; not for a thousand.",
    )
    return "the library's `alphas_cumprod`."


def _noisy() -> tuple[torch.Tensor, ...]:
    """(latents, noise (B, C, h, w) that are not square, alphas_cumprod (B,), noisy latents)."""
    latents = torch.randn(3, 2, 4, 5, generator=generator_for("diffusion", "z"))
    noise = torch.randn(3, 2, 4, 5, generator=generator_for("diffusion", "noise"))
    alphas = torch.tensor([0.9, 0.5, 0.1])
    return latents, noise, alphas, add_noise(latents, noise, alphas)


@exercise
def remove_noise(answer: Callable) -> str:
    """answer(noisy, noise (B, C, h, w), alphas_cumprod (B,)) -> the latents that were noised."""
    latents, noise, alphas, noisy = _noisy()
    got = answer(noisy.clone(), noise.clone(), alphas.clone())
    expect_shape(got, tuple(latents.shape), "The answer")
    alpha = alphas.view(-1, 1, 1, 1)
    root, rest = alpha.sqrt(), (1 - alpha).sqrt()
    reject_mistakes(
        got,
        (
            noisy - noise,
            "The noise was not added as it is: it was multiplied by √(1 − alphas_cumprod).",
        ),
        (
            noisy - rest * noise,
            "The noise is gone; what is left is √alphas_cumprod · latents: divide.",
        ),
        ((noisy - (1 - alpha) * noise) / alpha, "Roots: `alphas_cumprod` is a share of variance."),
        ((noisy - rest * noise) / alpha, "Divide by the root of `alphas_cumprod`."),
        (
            (noisy - root * noise) / rest,
            "`alphas_cumprod` belongs to the latents, 1 − alphas_cumprod to the noise.",
        ),
    )
    first, yours = latents[0, 0, 0, 0], got[0, 0, 0, 0]
    reject(close(got, latents, 1e-3), f"The first latent is {first:.4f}, and yours is {yours:.4f}.")
    return "from noisy latents and their noise the clean ones follow."


@exercise
def ddim_step(answer: Callable) -> str:
    """answer(noisy, noise (B, C, h, w), now, after (B,)) -> the same latents, noised to `after`."""
    latents, noise, now, noisy = _noisy()
    after = torch.tensor([0.95, 0.7, 0.3])
    truth = add_noise(latents, noise, after)
    got = answer(noisy.clone(), noise.clone(), now.clone(), after.clone())
    expect_shape(got, tuple(latents.shape), "The answer")
    alpha = after.view(-1, 1, 1, 1)
    reject_mistakes(
        got,
        (
            latents,
            "You took all the noise off; one step takes only some: add √(1 − after) of it again.",
        ),
        (noisy, "Nothing has changed: noise the clean latents with `after`, not with `now`."),
        (latents + (1 - alpha).sqrt() * noise, "The latents have their share too: √after."),
        (alpha * latents + (1 - alpha) * noise, "Roots: `after` is a share of variance."),
        rtol=1e-3,
    )
    first, yours = truth[0, 0, 0, 0], got[0, 0, 0, 0]
    reject(close(got, truth, 1e-3), f"The first value is {first:.4f}, and yours is {yours:.4f}.")
    return "one step of DDIM (Song, Meng & Ermon 2021, equation 12, without fresh noise)."


@exercise
def guide(answer: Callable) -> str:
    """answer(without, with_prompt (B, C, h, w), guidance) -> the noise to take off."""
    without = torch.randn(2, 3, 4, 5, generator=generator_for("guide", "a"))
    with_prompt = torch.randn(2, 3, 4, 5, generator=generator_for("guide", "b"))
    got = answer(without.clone(), with_prompt.clone(), 3.0)
    expect_shape(got, (2, 3, 4, 5), "The answer")
    apart = with_prompt - without
    wrong_way = 'Wrong way: walk from "without" towards "with", and on beyond it.'
    reject_mistakes(
        got,
        (
            with_prompt + 3 * apart,
            "One too much: at guidance 1 the answer is the one with the prompt.",
        ),
        (with_prompt - 3 * apart, wrong_way),
        (without - 3 * apart, wrong_way),
        (
            (without + 3 * with_prompt) / 4,
            "That is a mean; guidance goes beyond the prediction with the prompt.",
        ),
        (3 * with_prompt, "The prediction without the prompt is not used."),
    )
    reject(close(got, without + 3 * apart), "At guidance g: without + g · (with − without).")
    return "at 0 the prompt is ignored, at 1 it is followed, above it is exaggerated."


@exercise
def draw_quickly(answer: Callable) -> str:
    """answer(pipeline, prompts) -> pictures (N, 3, 64, 64) in [0, 1].

    With at most 16 guesses of the noise for each.
    """
    pipeline = load_tiny_sd().to(device())
    prompts = [caption(*combination) for combination in COMBINATIONS[::2]]
    asked = []  # the batch size of each call

    def note(module, args, kwargs, out) -> None:
        asked.append(len(args[0] if args else kwargs["sample"]))

    pipeline.unet.register_forward_hook(note, with_kwargs=True)
    got = answer(pipeline, list(prompts))
    expect_shape(got, (len(prompts), 3, 64, 64), "The answer")
    reject(got.min() >= -0.01, "Pictures are in [0, 1], and yours go below 0.")
    guesses = sum(asked) / len(prompts)
    reject(guesses > 0, "The UNet was not asked at all; draw with the pipeline that you are given.")
    reject(
        guesses <= 16,
        f"You asked for {guesses:.0f} guesses a picture; "
        "16 are allowed: eight steps with guidance.",
    )
    classifier = load_shipped(DogClassifier, "dog_classifier")
    right = prompt_accuracy(classifier, got.float().cpu(), prompts)["all three"]
    reject(
        right >= 0.9,
        f"{right:.0%} of the pictures show all that was asked for; at least 90% should.",
    )
    return f"{guesses:.0f} guesses a picture, {right:.0%} right. Does it work with fewer?"
