"""The wrong answers to notebook 5's exercises; `tests.exercises.wrong_answers` says how."""


def losses(discriminator: str, generator: str) -> str:
    return f"""
def gan_losses(logits_drawn, logits_codes):
    a, b, s = logits_drawn, logits_codes, F.softplus
    return {discriminator}, {generator}
"""


def merged(mean: str, logvar: str) -> str:
    return f"""
def merge(mean_a, logvar_a, mean_b, logvar_b):
    a, b = torch.exp(-logvar_a), torch.exp(-logvar_b)
    return {mean}, {logvar}
"""


def through(formula: str) -> str:
    return f"def straight_through(z, quantised): return {formula}"


def varied(formula: str) -> str:
    return f"""
def perplexity(codes, size):
    p = torch.bincount(codes.flatten(), minlength=size) / codes.numel()
    entropy = -torch.xlogy(p, p).sum()
    return {formula}
"""


def told(formula: str) -> str:
    return f"""
def information(joint):
    alone = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return {formula}
"""


MEAN = "(mean_a * a + mean_b * b) / (a + b)"
DISCRIMINATOR = "s(-a) + s(b)"

WRONG: dict[str, list[tuple[str, str]]] = {
    "gan_losses": [
        (losses("s(a) + s(-b)", "s(-b)"), "labels are swapped"),
        (losses("s(-a)", "s(-b)"), "plus softplus(logits) of the codes"),
        (losses(DISCRIMINATOR, "s(b)"), "easier to tell"),
        (losses(DISCRIMINATOR, "-s(b)"), "hardly any gradient"),
        (losses(DISCRIMINATOR, "-b"), "as if they were draws"),
        (losses(DISCRIMINATOR, "s(-b).mean()"), "The generator loss should have shape"),
        (
            "def gan_losses(logits_drawn, logits_codes): return F.softplus(-logits_codes)",
            "two losses",
        ),
    ],
    "merge": [
        (merged("(mean_a + mean_b) / 2", "-torch.log(a + b)"), "weigh each mean"),
        (merged("(mean_a * b + mean_b * a) / (a + b)", "-torch.log(a + b)"), "with the variances"),
        (merged("mean_a", "-torch.log(a + b)"), "with precisions p"),
        (merged(MEAN, "torch.log(a + b)"), "logarithm of the precision"),
        (merged(MEAN, "1 / (a + b)"), "its logarithm is asked for"),
        (merged(MEAN, "(logvar_a + logvar_b) / 2"), "Precisions add up"),
    ],
    "straight_through": [
        (through("z"), "sees z"),
        (through("quantised.detach()"), "No gradient gets through"),
        (through("quantised"), "does not reach z"),
        (through("z + quantised - z.detach()"), "reaches `quantised` as well"),
        (through("2 * z + (quantised - 2 * z).detach()"), "reach z unchanged"),
        (through("z + quantised.detach()"), "should be those of"),
    ],
    "perplexity": [
        (varied("-(p * p.log()).sum().exp()"), "not a number"),
        (varied("entropy"), "entropy in nats"),
        (varied("entropy / torch.tensor(2.0).log()"), "entropy in bits"),
        (varied("(p > 0).sum()"), "counts the entries in use"),
        (varied("size"), "you say"),
    ],
    "information": [
        (told("(joint * torch.log(joint / alone)).sum()"), "not a number"),
        (told("torch.xlogy(joint, alone / joint.clamp_min(1e-12)).sum()"), "upside down"),
        (told("torch.xlogy(joint, joint / alone).sum() / torch.tensor(2.0).log()"), "are bits"),
        (told("-torch.xlogy(joint, joint).sum()"), "entropy of the table"),
        (told("(joint - alone).abs().sum()"), "scikit-learn finds"),
    ],
}
