"""The wrong answers to notebook 10's exercises; `wrong_answers` says how they are written."""


def pair(loop: str) -> str:
    """most_frequent_pair with a loop over the pairs of one word."""
    return f"""
def most_frequent_pair(words):
    from collections import Counter
    counts = Counter()
    for word, often in words.items():
        for pair in {loop}
    return max(counts, key=counts.get)
"""


def kept(formula: str) -> str:
    return f"def alphas_cumprod(betas): return {formula}"


def clean(formula: str) -> str:
    return f"""
def remove_noise(noisy, noise, alphas_cumprod):
    alpha = alphas_cumprod.view(-1, 1, 1, 1)
    root, rest = alpha.sqrt(), (1 - alpha).sqrt()
    return {formula}
"""


def step(formula: str) -> str:
    return f"""
def ddim_step(noisy, noise, now, after):
    n, a = now.view(-1, 1, 1, 1), after.view(-1, 1, 1, 1)
    latents = (noisy - (1 - n).sqrt() * noise) / n.sqrt()
    return {formula}
"""


def guided(formula: str) -> str:
    return f"""
def guide(without, with_prompt, guidance):
    apart = with_prompt - without
    return {formula}
"""


def quick(pictures: str) -> str:
    return f"def draw_quickly(pipeline, prompts): return {pictures}"


WRONG: dict[str, list[tuple[str, str]]] = {
    "most_frequent_pair": [
        (pair("zip(word, word[1:]): counts[pair] += 1"), "Each word counts as often as it occurs"),
        (pair("set(zip(word, word[1:])): counts[pair] += often"), "more than once"),
        (pair("zip(word[1:], word): counts[pair] += often"), "The order counts"),
        ("def most_frequent_pair(words): return 'ld'", "as a pair"),
        ("def most_frequent_pair(words): pass", "returns nothing"),
        ("def most_frequent_pair(words): return ('g', 'o')", "9 times"),
    ],
    "alphas_cumprod": [
        (kept("1 - betas"), "each step alone"),
        (kept("betas.cumprod(0)"), "You multiplied what goes"),
        (kept("1 - betas.cumsum(0)"), "You subtracted"),
        (kept("(1 - betas).cumprod(0).sqrt()"), "its variance is the square"),
        (kept("(1 - betas).prod()"), "should have shape"),
    ],
    "remove_noise": [
        (clean("noisy - noise"), "it was multiplied by"),
        (clean("noisy - rest * noise"), "divide"),
        (clean("(noisy - (1 - alpha) * noise) / alpha"), "Roots"),
        (clean("(noisy - rest * noise) / alpha"), "Divide by the root"),
        (clean("(noisy - root * noise) / rest"), "belongs to the latents"),
    ],
    "ddim_step": [
        (step("latents"), "all the noise off"),
        (step("n.sqrt() * latents + (1 - n).sqrt() * noise"), "Nothing has changed"),
        (step("latents + (1 - a).sqrt() * noise"), "have their share too"),
        (step("a * latents + (1 - a) * noise"), "Roots"),
        (step("a.sqrt() * latents + (1 - a).sqrt() * noise.flip(0)"), "The first value is"),
    ],
    "guide": [
        (guided("with_prompt + guidance * apart"), "One too much"),
        (guided("with_prompt - guidance * apart"), "Wrong way"),
        (guided("(without + guidance * with_prompt) / (1 + guidance)"), "That is a mean"),
        (guided("guidance * with_prompt"), "is not used"),
        (guided("without + apart"), "At guidance g"),
    ],
    "draw_quickly": [
        (quick("sample(pipeline, prompts, steps=9)"), "18 guesses a picture"),
        (quick("sample(pipeline, prompts, steps=1)"), "at least 90% should"),
        (quick("sample(pipeline, prompts[:4], steps=1)"), "should have shape"),
        (quick("2 * sample(pipeline, prompts, steps=1) - 1"), "go below 0"),
        (quick("torch.rand(len(prompts), 3, 64, 64)"), "was not asked at all"),
    ],
}
