"""The wrong answers to notebook 2's exercises; `tests.exercises.wrong_answers` says how."""


def draw(formula: str) -> str:
    return f"""
def reparameterise(mean, logvar, generator=None):
    std, noise = (0.5 * logvar).exp(), randn_like(mean, generator)
    return {formula}
"""


def kl(formula: str) -> str:
    return f"""
def gaussian_kl(mean, logvar):
    each = mean**2 + logvar.exp() - 1 - logvar
    return {formula}
"""


def network(
    *,
    encoder: str = "self.encoder = mlp(784, *hidden, 2 * latent)",
    split: str = "mean, logvar = moments.chunk(2, dim=1)",
    encode: str = "return DiagonalGaussian(mean, logvar)",
    decode: str = "return self.decoder(z).unflatten(1, (1, 28, 28))",
    z: str = "posterior.sample(generator)",
    forward: str = "return VAEOutput(self.decode(z), posterior, z)",
) -> str:
    """The right class, but for one line."""
    return f"""
class MLPVAE(nn.Module):
    def __init__(self, latent=2, hidden=(512, 256)):
        super().__init__()
        self.config = {{"latent": latent, "hidden": list(hidden)}}
        {encoder}
        self.decoder = mlp(latent, *reversed(hidden), 784)

    def encode(self, x):
        moments = self.encoder(x.flatten(1))
        {split}
        {encode}

    def decode(self, z):
        {decode}

    def forward(self, x, generator=None):
        posterior = self.encode(x)
        z = {z}
        {forward}
"""


def elbo(
    loss: str = "reconstruction + beta * kl",
    reconstruction: str = "nll(output.decoded, x)",
    kl: str = "output.posterior.kl()",
    give: str = 'return {"loss": loss, "reconstruction": reconstruction, "kl": kl}',
) -> str:
    return f"""
def negative_elbo(output, x, nll=bernoulli_nll, beta=1.0):
    reconstruction = {reconstruction}
    kl = {kl}
    loss = {loss}
    {give}
"""


def coins(formula: str) -> str:
    return f"def first_nats(pixels): return {formula}"


STEP = (
    "optimizer.zero_grad()",
    'value = loss(model, batch, generator)["loss"].mean()',
    "value.backward()",
    "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
    "optimizer.step()",
    "schedule.step()",
    "total += value.item()",
)


def epoch(*lines: str, after: str = "return total / len(batches)", at: str = "step") -> str:
    body = "\n".join(f"        {line}" for line in lines)
    return f"""
def train_epoch(model, loss, batches, epoch, optimizer, schedule):
    total = 0.0
    for step, batch in enumerate(batches.epoch(epoch)):
        generator = generator_for("noise", batches.seed, epoch, {at})
{body}
    {after}
"""


def without(place: int) -> tuple[str, ...]:
    return STEP[:place] + STEP[place + 1 :]


def instead(place: int, line: str) -> tuple[str, ...]:
    return (*STEP[:place], line, *STEP[place + 1 :])


def arc(formula: str, angle: str = "torch.acos(torch.dot(a, b) / (a.norm() * b.norm()))") -> str:
    return f"""
def slerp(a, b, t):
    line = (1 - t) * a + t * b
    w = {angle}
    return {formula}
"""


ARC = "(torch.sin((1 - t) * w) * a + torch.sin(t * w) * b) / torch.sin(w)"


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
    "reparameterise": [
        (draw("torch.normal(mean, std)"), "No gradient flows"),
        (draw("mean + logvar.exp() * noise"), "the variance, and not its root"),
        (draw("mean + std * noise[0]"), "All images got the same noise"),
        (draw("mean + std * noise[:, :1]"), "All dimensions got the same noise"),
        (draw("mean + std.detach() * noise"), "does not reach the log-variance"),
        (draw("std * noise"), "The mean is missing"),
        (draw("mean + 0 * std"), "There is no noise in your draw"),
        (draw("mean + noise + 0 * std"), "The noise is not scaled"),
        (draw("mean + noise / std"), "upside down"),
        (draw("mean + std * (noise + 0.2)"), "spreads off on average"),
        (draw("mean + 1.1 * std * noise"), "and yours is 1.1"),
        (
            draw("mean + std * 12**0.5 * (torch.rand(mean.shape, generator=generator) - 0.5)"),
            "not a normal distribution",
        ),
        (draw("mean + std * torch.randn(mean.shape)"), "You did not use `generator`"),
        (draw("(mean + std * noise).tolist()"), "yours is of type list"),
        (draw("None"), "yours is None"),
    ],
    "gaussian_kl": [
        (kl("0.5 * each.sum()"), "whole batch"),
        (kl("0.5 * each"), "of each latent dimension"),
        (kl("0.5 * each.sum(0)"), "You summed over the images"),
        (kl("0.5 * each.mean(1)"), "averaged over the latent"),
        (kl("-0.5 * each.sum(1)"), "never negative"),
        (kl("each.sum(1)"), "twice the KL"),
        (
            kl("0.5 * (mean**2 + logvar.exp() ** 2 - 1 - 2 * logvar).sum(1)"),
            "for the standard deviation",
        ),
        (
            kl("0.5 * ((1 + mean**2) / logvar.exp() - 1 + logvar).sum(1)"),
            "a KL is not symmetric",
        ),
        (kl("0.5 * (mean**2 + logvar.exp() - logvar).sum(1)"), "torch.distributions says"),
        (kl("[float(row.sum()) / 2 for row in each]"), "yours is of type list"),
        (kl("(0.5 * each.sum(1)).numpy()"), "yours is of type ndarray"),
        ("def gaussian_kl(mean, logvar): mean + logvar", "returns nothing"),
    ],
    "mlp_vae": [
        (
            network(encoder="self.encoder = mlp(784, *hidden, latent)"),
            "should have shape (4, 256), and yours has (2, 256)",
        ),
        (network(split="logvar, mean = moments.chunk(2, dim=1)"), "You swapped them"),
        (
            network(split="mean = logvar = moments.chunk(2, dim=1)[0]"),
            "are the same half",
        ),
        (
            network(split="mean, logvar = moments.relu().chunk(2, dim=1)"),
            "A mean may be negative",
        ),
        (
            network(split="mean, logvar = moments[:, ::2], moments[:, 1::2]"),
            "The mean should be the first half",
        ),
        (
            network(encode="return DiagonalGaussian(mean, logvar.exp())"),
            "DiagonalGaussian takes its exponential",
        ),
        (network(encode="return mean, logvar"), "not a pair"),
        (network(encode="return mean"), "should return a DiagonalGaussian(mean, logvar)."),
        (
            network(decode="return self.decoder(z).sigmoid().unflatten(1, (1, 28, 28))"),
            "returns logits",
        ),
        (network(decode="return self.decoder(z)"), "should have shape (7, 1, 28, 28)"),
        (network(decode="return self.decoder(-z).unflatten(1, (1, 28, 28))"), "makes of z"),
        (network(z="posterior.mode()"), "z is the mean of the posterior"),
        (
            network(forward="return VAEOutput(self.decode(posterior.mean), posterior, z)"),
            "You decode the mean",
        ),
        (network(z="posterior.sample()"), "hand it to `sample`"),
        (
            network(forward="return VAEOutput(self.decode(-z), posterior, z)"),
            "`decoded` should be what `decode` makes of z",
        ),
        (network(forward="return self.decode(z), posterior, z"), "should return VAEOutput"),
        (network(forward="return VAEOutput(self.decode(z), z, posterior)"), "in another order"),
        (network(forward="pass"), "`forward` returns nothing"),
        ("class MLPVAE: pass", "should be a network"),
    ],
    "negative_elbo": [
        (elbo("reconstruction - beta * kl"), "The KL is a price"),
        (elbo("-(reconstruction + beta * kl)"), "That is the ELBO"),
        (elbo("reconstruction"), "the KL is missing"),
        (elbo("reconstruction + kl"), "`beta` is not used"),
        (elbo("beta * (reconstruction + kl)"), "β multiplies the KL alone"),
        (elbo("reconstruction + kl", kl="beta * output.posterior.kl()"), "β belongs into `loss`"),
        (elbo(reconstruction="nll(output.decoded, x) / x[0].numel()"), "averaged over the pixels"),
        (elbo(reconstruction="nll(output.decoded.sigmoid(), x)"), "no sigmoid before it"),
        (elbo(reconstruction="bernoulli_nll(output.decoded, x)"), "`nll` that was handed over"),
        (elbo(reconstruction="nll(output.decoded, x).mean()"), "`reconstruction` is one number"),
        (elbo(kl="output.posterior.kl().mean()"), "`kl` is one number"),
        (elbo(kl="2 * output.posterior.kl()"), "`kl` should be output.posterior.kl()"),
        (elbo("reconstruction + 2 * beta * kl"), "`loss` should be reconstruction + beta · kl"),
        (elbo(give="return loss"), "Return a dict"),
        (elbo(give='return {"loss": loss, "kl": kl}'), "Your dict has no ['reconstruction']"),
        (elbo(give="pass"), "returns nothing"),
    ],
    "first_nats": [
        (coins("pixels"), "Those are bits"),
        (coins("pixels * math.log(0.5)"), "The sign is upside down"),
        (coins("math.log(2)"), "That is one pixel"),
        (coins("pixels / 2"), "its price is −log ½"),
        (coins("pixels / 4"), "the squared error"),
        (coins("543.427"), "Right for 784 pixels alone"),
        (coins("pixels * math.log(10)"), "784 fair coins cost 543.427 nats"),
        ("def first_nats(pixels): pixels * math.log(2)", "returns nothing"),
    ],
    "train_epoch": [
        (epoch(*without(0)), "gradient is not forgotten"),
        (epoch(*without(3)), "not clipped"),
        (epoch(*without(4)), "No weight has changed"),
        (epoch(*without(5)), "call schedule.step() once"),
        (epoch(*without(6)), "`total` is still 0"),
        (
            epoch(*instead(1, 'value = loss(model, batch, generator)["loss"].sum()')),
            "You summed over each batch",
        ),
        (
            epoch(*instead(1, 'value = loss(model, batch, None)["loss"].mean()')),
            "does the loss get the step's own generator?",
        ),
        (epoch(*STEP, at="0"), "Every step has the same noise"),
        (epoch(*STEP, after="return total"), "the sum of the losses"),
        (epoch(*STEP, after="return value.item()"), "The mean loss of the epoch was"),
        (epoch(*instead(6, "total = total + value")), "as a plain number"),
        (epoch(*STEP, after="pass"), "returns nothing"),
    ],
    "slerp": [
        (arc("line"), "straight line"),
        (
            arc("line / line.norm() * ((1 - t) * a.norm() + t * b.norm())"),
            "not at equal angles",
        ),
        (
            arc("(torch.sin(t * w) * a + torch.sin((1 - t) * w) * b) / torch.sin(w)"),
            "a and b have changed places",
        ),
        (arc(ARC, "torch.acos(torch.dot(a, b) / 0.1)"), "Your point is not a number"),
        (arc(ARC, "torch.acos(torch.dot(a, b).clamp(-0.999, 0.999))"), "yours has no lengths"),
        (arc(ARC, "torch.tensor(math.pi / 2)"), "for a right angle"),
        (arc(ARC.removesuffix(" / torch.sin(w)")), "Divide by sin ω"),
        (arc(ARC, "torch.dot(a, b) / (a.norm() * b.norm())"), "ω is its arc cosine"),
        (arc(f"1.1 * {ARC}"), "the first coordinate should be"),
        (arc(f"({ARC}).numpy()"), "yours is of type ndarray"),
        (arc("None"), "yours is None"),
    ],
    "my_vae": [
        (untrained("parameter.zero_()"), "posterior collapsed"),
        (untrained("parameter.mul_(30 if parameter.ndim == 2 else 1)"), "train longer"),
        ("def my_vae(train): MLPVAE(20, (400,))", "returns nothing"),
        ("def my_vae(train): return vae_loss", "Return the trained model"),
    ],
}
