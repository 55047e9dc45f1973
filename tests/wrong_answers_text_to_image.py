"""The wrong answers to notebook 07's exercises; `tests.wrong_answers` says how they are written."""


def pair(body: str) -> str:
    """most_frequent_pair with a loop whose body is given."""
    return (
        "def most_frequent_pair(words):\n    from collections import Counter\n    counts = Counter()\n    for word, often in words.items():\n"
        f"        for pair in {body}\n    return max(counts, key=counts.get)"
    )


def kept(formula: str) -> str:
    return f"def variance_kept(betas): return {formula}"


def clean(formula: str) -> str:
    return f"def remove_noise(noisy, noise, kept):\n    k = kept.view(-1, 1, 1, 1)\n    return {formula}"


def step(formula: str) -> str:
    return f"""
def ddim_step(noisy, noise, now, after):
    n, a = now.view(-1, 1, 1, 1), after.view(-1, 1, 1, 1)
    latents = (noisy - (1 - n).sqrt() * noise) / n.sqrt()
    return {formula}
"""


def guided(formula: str) -> str:
    return f"def guide(without, with_prompt, guidance): return {formula}"


def quick(body: str) -> str:
    return f"def draw_quickly(pipeline, prompts):\n    {body}"


WRONG: dict[str, list[tuple[str, str]]] = {
    "most_frequent_pair": [
        (pair("zip(word, word[1:]): counts[pair] += 1"), "Each word counts as often as it occurs"),
        (pair("set(zip(word, word[1:])): counts[pair] += often"), "more than once"),
        (pair("zip(word[1:], word): counts[pair] += often"), "The order counts"),
        ("def most_frequent_pair(words): return 'ld'", "as a pair"),
        ("def most_frequent_pair(words): pass", "returns nothing"),
        ("def most_frequent_pair(words): return ('g', 'o')", "9 times"),
    ],
    "variance_kept": [
        (kept("1 - betas"), "each step alone"),
        (kept("betas.cumprod(0)"), "You multiplied what goes"),
        (kept("1 - betas.cumsum(0)"), "You subtracted"),
        (kept("(1 - betas).cumprod(0).sqrt()"), "its variance is the square"),
        (kept("(1 - betas).prod()"), "should have shape"),
    ],
    "remove_noise": [
        (clean("noisy - noise"), "it was multiplied by"),
        (clean("noisy - (1 - k).sqrt() * noise"), "divide"),
        (clean("(noisy - (1 - k) * noise) / k"), "Roots"),
        (clean("(noisy - (1 - k).sqrt() * noise) / k"), "Divide by the root"),
        (clean("(noisy - k.sqrt() * noise) / (1 - k).sqrt()"), "belongs to the latents"),
    ],
    "ddim_step": [
        (step("latents"), "all the noise off"),
        (step("diffuse(latents, noise, now)"), "Nothing has changed"),
        (step("latents + (1 - a).sqrt() * noise"), "have their share too"),
        (step("a * latents + (1 - a) * noise"), "Roots"),
        (step("diffuse(latents, torch.randn_like(noise), after)"), "The first value is"),
    ],
    "guide": [
        (guided("with_prompt + guidance * (with_prompt - without)"), "One too much"),
        (guided("with_prompt - guidance * (with_prompt - without)"), "Wrong way"),
        (guided("(without + guidance * with_prompt) / (1 + guidance)"), "That is a mean"),
        (guided("guidance * with_prompt"), "is not used"),
        (guided("without + (with_prompt - without)"), "At guidance g"),
    ],
    "draw_quickly": [
        (quick("return sample(pipeline, prompts, steps=12)"), "16 are allowed"),
        (quick("return sample(pipeline, prompts, steps=1)"), "at least 90% should"),
        (quick("return sample(pipeline, prompts[:4], steps=4)"), "should have shape"),
        (quick("return 2 * sample(pipeline, prompts, steps=4) - 1"), "go below 0"),
        (quick("return load_drawn_dogs(48, 64)[:24].pixels()"), "was not asked at all"),
    ],
}
