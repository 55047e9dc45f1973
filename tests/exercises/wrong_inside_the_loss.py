"""The wrong answers to notebook 3's exercises; `tests.exercises.wrong_answers` says how."""


def beta(formula: str) -> str:
    return f"def effective_beta(pixels, latents): return {formula}"


def ramp(formula: str) -> str:
    return f"def kl_weight(step, total): return {formula}"


def weight(formula: str) -> str:
    return f"""
def log_weight(posterior, z, nll):
    from torch.distributions import Normal
    p = Normal(0.0, 1.0).log_prob(z).sum(1)
    q = Normal(posterior.mean, posterior.std).log_prob(z).sum(1)
    return {formula}
"""


def estimate(formula: str) -> str:
    return f"def importance_weighted(log_weights): return {formula}"


def naive(formula: str, codes: str = "torch.randn(k, latent, generator=generator)") -> str:
    return f"""
@torch.no_grad()
def naive_nll(model, x, k, generator=None):
    latent = model.config["latent"]
    z = {codes}
    each = torch.stack([bernoulli_nll(image.expand_as(x), x) for image in model.decode(z)])
    return {formula}
"""


MEAN = "importance_weighted(-each)"


def mixture(covariance: str, give: str = "mean.mean(0), covariance") -> str:
    return f"""
def aggregate_posterior(mean, logvar):
    between = torch.cov(mean.T, correction=0)
    variance = logvar.exp().mean(0)
    covariance = {covariance}
    return {give}
"""


def prior(give: str) -> str:
    return f"""
def my_prior(train):
    model = MLPVAE(20, (400,)).eval()
    return {give}
"""


NORMAL = "lambda count, generator: torch.randn(count, 20, generator=generator)"

WRONG: dict[str, list[tuple[str, str]]] = {
    "effective_beta": [
        (beta("latents / pixels"), "Upside down"),
        (beta("1.0"), "so β is not 1"),
        (beta("pixels"), "The KL is averaged too"),
        (beta("pixels * latents"), "is a quotient"),
        (beta("pixels // latents"), "You rounded"),
        (beta("50.0"), "β is 39.2, and you say 50.0"),
        ("def effective_beta(pixels, latents): pixels / latents", "returns nothing"),
    ],
    "kl_weight": [
        (ramp("step / (0.3 * total)"), "stays at 1"),
        (ramp("0.3 * step / total"), "never reaches 1"),
        (ramp("step / total"), "rises over all steps"),
        (ramp("1.0"), "At step 0"),
        (
            ramp("0.5 - 0.5 * math.cos(math.pi * min(1, step / (0.3 * total)))"),
            "Your ramp is a cosine",
        ),
        (ramp("min(1, step / (0.3 * total)) ** 2"), "Your ramp is bent"),
        (ramp("min(1, step // (0.3 * total))"), "jumps from 0 to 1"),
        (ramp("min(1, step / 300)"), "At step 44 of 730"),
        (ramp("min(1, step / (0.4 * total))"), "At step 60 of 1000 the weight should be 0.2"),
        ("def kl_weight(step, total): min(1, step / total)", "returns nothing"),
    ],
    "log_weight": [
        (weight("nll + p - q"), "so subtract it"),
        (weight("q - p - nll"), "q(z|x) below"),
        (weight("p - nll"), "log q(z|x) is missing"),
        (weight("-nll - q"), "log p(z) is missing"),
        (weight("-nll"), "Only log p(x|z) is there"),
        (weight("nll - p + q"), "and not −log w"),
        (weight("-nll - posterior.kl()"), "That is the ELBO"),
        (
            weight("p - Normal(posterior.mean, posterior.logvar.exp()).log_prob(z).sum(1) - nll"),
            "exp(logvar) is the variance",
        ),
        (weight("(p - q - nll).exp()"), "without exp"),
        (weight("(p - q - nll).view(6)"), "Your code raised"),
        (weight("(p - q - nll).sum()"), "for the whole batch"),
        (weight("p - q - nll + 1"), "For the first image log w is"),
        (weight("(p - q - nll).tolist()"), "yours is of type list"),
        (weight("None"), "returns nothing"),
    ],
    "importance_weighted": [
        (estimate("-log_weights.mean(0)"), "that is the ELBO"),
        (estimate("-log_weights.exp().mean(0).log()"), "logsumexp"),
        (estimate("-torch.logsumexp(log_weights, 0)"), "smaller by log k"),
        (
            estimate("-math.log(len(log_weights)) - torch.logsumexp(log_weights, 0)"),
            "log k has the wrong sign",
        ),
        (
            estimate("torch.logsumexp(log_weights, 0) - math.log(len(log_weights))"),
            "return its negative",
        ),
        (estimate("-log_weights.max(0).values"), "the largest weight"),
        (estimate("-torch.logsumexp(log_weights, 1)"), "stand in the first axis"),
        (
            estimate("math.log(50) - torch.logsumexp(log_weights, 0)"),
            "for the first image, and yours is",
        ),
        (estimate("-torch.logsumexp(log_weights, (0, 1))"), "should have shape (3,)"),
        ("def importance_weighted(log_weights): log_weights.mean(0)", "returns nothing"),
    ],
    "naive_nll": [
        (naive("each.mean(0)"), "You averaged −log p(x|z)"),
        (naive("each.min(0).values"), "the best draw"),
        (naive("-torch.logsumexp(-each, 0)"), "smaller by log k"),
        (naive("-importance_weighted(-each)"), "return its negative"),
        (naive("importance_weighted(each)"), "mind the minus"),
        (
            naive("bernoulli_nll(model.decode(model.encode(x).mean), x)"),
            "this estimate does without one",
        ),
        (naive(MEAN, "torch.randn(k, latent)"), "You did not use `generator`"),
        (naive(MEAN, "2 * torch.randn(k, latent, generator=generator)"), "With the same draws"),
        (naive(f"{MEAN}.mean()"), "should have shape (5,)"),
        (naive("None"), "returns nothing"),
    ],
    "aggregate_posterior": [
        (mixture("between"), "The posteriors have a width"),
        (mixture("torch.diag(variance)"), "The means differ"),
        (
            mixture("between + torch.diag((0.5 * logvar).exp().mean(0))"),
            "variances add up",
        ),
        (mixture("between + torch.diag(logvar.mean(0).exp())"), "averaged the log-variances"),
        (mixture("between + variance"), "on the diagonal"),
        (mixture("torch.cov(mean.T) + torch.diag(variance)"), "You divided by N − 1"),
        (
            mixture("torch.diag(between.diag()) + torch.diag(variance)"),
            "You kept the diagonal alone",
        ),
        (mixture("between.diag() + variance"), "return the whole covariance matrix"),
        (mixture("2 * between + torch.diag(variance)"), "The first variance should be"),
        (mixture("between", "covariance"), "Return two things"),
        (mixture("between", "0 * mean[0], covariance"), "is the mean of the means"),
        (mixture("between", "mean.mean(0), covariance.numpy()"), "yours is of type ndarray"),
        (mixture("between", "None"), "returns nothing"),
    ],
    "my_prior": [
        (prior("model"), "Return two things"),
        (prior(f"3, {NORMAL}"), "The first one should be the trained model"),
        (prior("model, torch.randn(2000, 20)"), "should be a function"),
        (
            prior("model, lambda count, generator: torch.randn(count, 3, generator=generator)"),
            "should have shape (2000, 20)",
        ),
        (prior("model, lambda count, generator: torch.randn(count, 20)"), "`generator`"),
        (
            prior(
                "model, lambda count, generator: 90 * torch.randn(count, 20, generator=generator)"
            ),
            "look where the codes are",
        ),
    ],
}
