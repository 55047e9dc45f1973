"""The wrong answers to notebook 03's exercises; `tests.wrong_answers` says how they are written."""


def pairs(formula: str) -> str:
    return f"def auroc(strangers, acquaintances):\n    a, b = strangers[:, None], acquaintances[None, :]\n    return {formula}"


def filled(before: str, after: str = "return filled", rounds: str = "rounds") -> str:
    return (
        f"def fill(model, x, known, start, rounds):\n    filled = torch.where(known, x, start)\n    for _ in range({rounds}):\n"
        f"        {before}\n    {after}"
    )


def leaning(formula: str, ink: str = "images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)", centred: bool = True) -> str:
    means = ("(ink * row).sum((1, 2), keepdim=True)", "(ink * column).sum((1, 2), keepdim=True)") if centred else ("13.5", "14")
    return f"""
def slant(images):
    row, column = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    ink = {ink}
    r, c = row - {means[0]}, column - {means[1]}
    return {formula}
"""


def worth(formula: str) -> str:
    return (
        "def bits(mean, logvar):\n    each = 0.5 * (mean**2 + logvar.exp() - 1 - logvar)\n    two = torch.tensor(2.0).log()\n"
        f"    return {formula}"
    )


def labelled(labels: str, seen: str = "vae.encode(images).mode().detach()", new: str = "vae.encode(new).mode().detach()") -> str:
    """A linear classifier on the codes, or on whatever else."""
    return (
        "def semi_supervised(vae, images, labels, others):\n    from sklearn.linear_model import LogisticRegression\n"
        f"    line = LogisticRegression(max_iter=1000).fit({seen}, {labels})\n"
        f"    return lambda new: torch.from_numpy(line.predict({new}))"
    )


ROUND = "filled = torch.where(known, x, model.decode(model.encode(filled).mode()).sigmoid())"

WRONG: dict[str, list[tuple[str, str]]] = {
    "auroc": [
        (pairs("(a < b).float().mean()"), "The other way round"),
        (pairs("(a > b).sum()"), "divide by how many"),
        (pairs("(a > b).float().mean()"), "yours count nothing"),
        (pairs("(a >= b).float().mean()"), "yours count whole"),
        (pairs("strangers.mean() - acquaintances.mean()"), "the share is"),
    ],
    "fill": [
        (filled("filled = model.decode(model.encode(filled).mode()).sigmoid()"), "Known pixels changed"),
        (filled("filled = torch.where(known, x, model.decode(model.encode(filled).mode()))"), "take their sigmoid"),
        (filled("pass"), "Nothing was filled in"),
        (filled(ROUND, rounds="1"), "One round only"),
        (filled(ROUND, rounds="rounds + 1"), "too few or too many"),
        (
            "def fill(model, x, known, start, rounds):\n    filled = x * known\n    for _ in range(rounds):\n        "
            + ROUND
            + "\n    return filled",
            "not with black",
        ),
    ],
    "slant": [
        (leaning("-(ink * r * c).sum((1, 2)) / (ink * r**2).sum((1, 2))"), "The sign"),
        (leaning("(ink * r * c).sum((1, 2)) / (ink * c**2).sum((1, 2))"), "are measured as"),
        (leaning("(ink * r * c).sum((1, 2)) / (ink * r**2).sum((1, 2))", centred=False), "subtract the mean"),
        ("def slant(images): return images.sum((1, 2, 3))[:, None]", "should have shape"),
    ],
    "bits": [
        (worth("each.sum(1).mean()"), "Those are nats"),
        (worth("each.sum(1).mean() * two"), "divide by log 2"),
        (worth("each.mean() / two"), "mean over the numbers"),
        (worth("each.sum() / two"), "sum over all codes"),
        (worth("(mean**2).sum(1).mean()"), "are worth"),
    ],
    "semi_supervised": [
        ("def semi_supervised(vae, images, labels, others): return labels", "Return a function"),
        ("def semi_supervised(vae, images, labels, others): return lambda new: labels", "should have shape"),
        (labelled("labels.flip(0)"), "do images and labels still belong together"),
        (labelled("labels", "images[:, 0, 14]", "new[:, 0, 14]"), "85 % is the aim"),
    ],
}
