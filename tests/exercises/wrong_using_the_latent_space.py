"""The wrong answers to notebook 4's exercises; `tests.exercises.wrong_answers` says how."""


def pairs(formula: str) -> str:
    return f"""
def auroc(outliers, inliers):
    a, b = outliers[:, None], inliers[None, :]
    return {formula}
"""


def filled(before: str, rounds: str = "rounds", start: str = "torch.where(known, x, start)") -> str:
    return f"""
def fill(model, x, known, start, rounds):
    filled = {start}
    for _ in range({rounds}):
        {before}
    return filled
"""


def leaning(formula: str, centred: bool = True) -> str:
    row = "(ink * row).sum((1, 2), keepdim=True)" if centred else "13.5"
    column = "(ink * column).sum((1, 2), keepdim=True)" if centred else "14"
    return f"""
def slant(images):
    row, column = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    ink = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
    r, c = row - {row}, column - {column}
    return {formula}
"""


def worth(formula: str) -> str:
    return f"""
def bits(mean, logvar):
    each = 0.5 * (mean**2 + logvar.exp() - 1 - logvar)
    two = torch.tensor(2.0).log()
    return {formula}
"""


def semi_supervised(classify: str) -> str:
    return f"def semi_supervised(vae, images, labels, others): return {classify}"


def labelled(labels: str, features: str = "vae.encode(of).mode().detach()") -> str:
    """A linear classifier on the codes, or on whatever else."""
    return f"""
def semi_supervised(vae, images, labels, others):
    from sklearn.linear_model import LogisticRegression

    def features(of): return {features}
    line = LogisticRegression(max_iter=1000).fit(features(images), {labels})
    return lambda new: torch.from_numpy(line.predict(features(new)))
"""


DECODED = "model.decode(model.encode(filled).mode())"
ROUND = f"filled = torch.where(known, x, {DECODED}.sigmoid())"

WRONG: dict[str, list[tuple[str, str]]] = {
    "auroc": [
        (pairs("(a < b).float().mean()"), "The other way round"),
        (pairs("(a > b).sum()"), "divide by how many"),
        (pairs("(a > b).float().mean()"), "yours count nothing"),
        (pairs("(a >= b).float().mean()"), "yours count whole"),
        (pairs("outliers.mean() - inliers.mean()"), "the share is"),
        ("def auroc(outliers, inliers): pass", "returns nothing"),
    ],
    "fill": [
        (filled(f"filled = {DECODED}.sigmoid()"), "Known pixels changed"),
        (filled(f"filled = torch.where(known, x, {DECODED})"), "take their sigmoid"),
        (filled("pass"), "Nothing was inpainted"),
        (filled(ROUND, rounds="1"), "One round only"),
        (filled(ROUND, rounds="rounds + 1"), "too few or too many"),
        (filled(ROUND, start="x * known"), "not with black"),
    ],
    "slant": [
        (leaning("-(ink * r * c).sum((1, 2)) / (ink * r**2).sum((1, 2))"), "The sign"),
        (leaning("(ink * r * c).sum((1, 2)) / (ink * c**2).sum((1, 2))"), "are measured as"),
        (
            leaning("(ink * r * c).sum((1, 2)) / (ink * r**2).sum((1, 2))", centred=False),
            "subtract the mean",
        ),
        ("def slant(images): return images.sum((1, 2, 3))[:, None]", "should have shape"),
    ],
    "bits": [
        (worth("each.sum(1).mean()"), "Those are nats"),
        (worth("each.sum(1).mean() * two"), "divide by log 2"),
        (worth("each.mean() / two"), "mean over the latent dimensions"),
        (worth("each.sum() / two"), "sum over all codes"),
        (worth("(mean**2).sum(1).mean()"), "are worth"),
    ],
    "semi_supervised": [
        (semi_supervised("labels"), "Return a function"),
        (semi_supervised("lambda new: labels"), "should have shape"),
        (labelled("labels.flip(0)"), "do images and labels still belong together"),
        (labelled("labels", features="of[:, 0, 14]"), "85 % is the aim"),
    ],
}
