"""The wrong answers to notebook 2's exercises; `tests.exercises.wrong_answers` says how."""


def beta(formula: str) -> str:
    return f"def effective_beta(pixels, latents): return {formula}"


def kl(formula: str) -> str:
    return f"""
def gaussian_kl(mean, logvar):
    each = mean**2 + logvar.exp() - 1 - logvar
    return {formula}
"""


def draw(formula: str) -> str:
    return f"""
def reparameterise(mean, logvar, generator):
    std, noise = (0.5 * logvar).exp(), torch.randn(mean.shape, generator=generator)
    return {formula}
"""


def weight(formula: str) -> str:
    return f"def kl_weight(step, total): return {formula}"


def arc(formula: str) -> str:
    return f"""
def slerp(a, b, t):
    line = (1 - t) * a + t * b
    w = torch.acos(torch.dot(a, b) / (a.norm() * b.norm()))
    return {formula}
"""


def estimate(formula: str) -> str:
    return f"def importance_weighted(log_weights): return {formula}"


def untrained(change: str) -> str:
    return f"""
def my_vae(train):
    model = MLPVAE(20, (400,))
    with torch.no_grad():
        for parameter in model.encoder[-1].parameters():
            {change}
    return model.eval()
"""


WRONG: dict[str, list[tuple[str, str]]] = {
    "effective_beta": [
        (beta("latents / pixels"), "Upside down"),
        (beta("1.0"), "β is 50"),
        ("def effective_beta(pixels, latents): pixels / latents", "returns nothing"),
    ],
    "gaussian_kl": [
        (kl("0.5 * each.sum()"), "whole batch"),
        (kl("0.5 * each"), "of each latent dimension"),
        (kl("0.5 * each.mean(1)"), "averaged over the latent"),
        (kl("-0.5 * each.sum(1)"), "never negative"),
        (
            kl("0.5 * (mean**2 + logvar.exp() ** 2 - 1 - 2 * logvar).sum(1)"),
            "for the standard deviation",
        ),
        (kl("each.sum(1)"), "torch.distributions says"),
        (kl("[float(row.sum()) / 2 for row in each]"), "yours is of type list"),
    ],
    "reparameterise": [
        (draw("torch.normal(mean, std)"), "No gradient flows"),
        (draw("mean + logvar.exp() * noise"), "the variance, not its root"),
        (draw("mean + std * noise[0]"), "same noise"),
        (draw("mean + std.detach() * noise"), "does not reach the log-variance"),
        (draw("std * noise"), "should be 2 and 0.5"),
    ],
    "kl_weight": [
        (weight("step / (0.3 * total)"), "stays at 1"),
        (weight("0.3 * step / total"), "never reaches 1"),
        (weight("step / total"), "should be 0.5"),
        (weight("1.0"), "At step 0"),
    ],
    "slerp": [
        (arc("line"), "straight line"),
        (arc("line / line.norm() * ((1 - t) * a.norm() + t * b.norm())"), "third of the angle"),
        (
            arc("(torch.sin(t * w) * a + torch.sin((1 - t) * w) * b) / torch.sin(w)"),
            "t = 0 should give a",
        ),
    ],
    "importance_weighted": [
        (estimate("-log_weights.mean(0)"), "that is the ELBO"),
        (estimate("-log_weights.exp().mean(0).log()"), "logsumexp"),
        (estimate("-torch.logsumexp(log_weights, 0)"), "smaller by log k"),
        (estimate("torch.logsumexp(log_weights, 0) - math.log(len(log_weights))"), "mind the sign"),
        (estimate("-torch.logsumexp(log_weights, 1)"), "should have shape"),
    ],
    "my_vae": [
        (untrained("parameter.zero_()"), "posterior collapsed"),
        (untrained("parameter.mul_(30 if parameter.ndim == 2 else 1)"), "train longer"),
    ],
}
