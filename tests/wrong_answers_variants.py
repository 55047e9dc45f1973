"""The wrong answers to notebook 04's exercises; `tests.wrong_answers` says how they are written."""


def play(telling: str, fooling: str) -> str:
    return (
        "def players(logits_drawn, logits_codes):\n    a, b, s = logits_drawn, logits_codes, F.softplus\n"
        f"    return {telling}, {fooling}"
    )


def merged(mean: str, logvar: str) -> str:
    return (
        "def merge(mean_a, logvar_a, mean_b, logvar_b):\n    a, b = torch.exp(-logvar_a), torch.exp(-logvar_b)\n"
        f"    return {mean}, {logvar}"
    )


def through(formula: str) -> str:
    return f"def straight_through(z, quantised): return {formula}"


def varied(formula: str) -> str:
    return (
        "def perplexity(codes, size):\n    p = torch.bincount(codes.flatten(), minlength=size) / codes.numel()\n"
        f"    entropy = -torch.xlogy(p, p).sum()\n    return {formula}"
    )


def told(formula: str) -> str:
    return (
        "def information(joint):\n    alone = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)\n"
        f"    return {formula}"
    )


MEAN = "(mean_a * a + mean_b * b) / (a + b)"
TELLING = "s(-a) + s(b)"

WRONG: dict[str, list[tuple[str, str]]] = {
    "players": [
        (play("s(a) + s(-b)", "s(-b)"), "labels are swapped"),
        (play("s(-a)", "s(-b)"), "plus softplus(logits) of the codes"),
        (play(TELLING, "s(b)"), "easier to tell"),
        (play(TELLING, "-s(b)"), "hardly any gradient"),
        (play(TELLING, "-b"), "as if they were draws"),
        ("def players(logits_drawn, logits_codes): return F.softplus(-logits_codes)", "two losses"),
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
        (told("torch.xlogy(joint, joint / alone).sum() / torch.tensor(2.0).log()"), "Those are bits"),
        (told("-torch.xlogy(joint, joint).sum()"), "entropy of the table"),
        (told("(joint - alone).abs().sum()"), "scikit-learn finds"),
    ],
}
