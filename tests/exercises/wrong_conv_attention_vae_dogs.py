"""The wrong answers to notebook 8's exercises; `tests.exercises.wrong_answers` says how."""


def nats(formula: str) -> str:
    return f"def weight_in_nats(weight, values, mse): return {formula}"


def block(
    output: str, scale: str = "nn.Parameter(torch.tensor(start))", base: str = "ResBlock"
) -> str:
    arguments = "inputs, outputs, groups" if base == "ResBlock" else ""
    return f"""
class ScaledResBlock({base}):
    def __init__(self, inputs, outputs, groups=32, start=1.0):
        super().__init__({arguments})
        self.scale = {scale}

    def forward(self, x):
        bias = self.conv2.bias[:, None, None]
        s, h = self.shortcut(x), super().forward(x) - self.shortcut(x)
        return {output}
"""


def untrained(change: str, returned: str = "return model", channels: int = 4) -> str:
    return f"""
def my_dog_vae(train):
    model = ConvVAE(VAEConfig.course(4, latent_channels={channels}))
    with torch.no_grad():
        {change}
    {returned}
"""


UNSCALED = """
class Linear(ConvVAE):
    def decode(self, z):
        return 2 * super().decode(z) - 1

def my_dog_vae(train):
    model = Linear(VAEConfig.photos(4)).start_as(BlockPCA(train, 4, 4))
    loss = lambda m, batch, generator: {
        "loss": ((m(batch["images"]).decoded + 1) / 2 - batch["images"]).square().mean((1, 2, 3))
    }
    fit(model, loss, train, steps=150, batch_size=8, lr=5e-3)
    return model
"""
LINEAR = """
def my_dog_vae(train):
    model = ConvVAE(VAEConfig.photos(4)).start_as(BlockPCA(train, 4, 4))
    nn.init.zeros_(model.encoder.conv_out.weight)
    return model
"""


def linear(
    weight: str = "(axes / sd).T",
    bias: str = "-(mean @ axes) / sd",
    back: str = "(axes * sd).T",
    colour: str = "mean.view(3, -1).mean(1)",
) -> str:
    return f"""
class LinearShortcut(nn.Module):
    def __init__(self, factor, latent_channels):
        super().__init__()
        self.encode = nn.Conv2d(3, latent_channels, factor, stride=factor)
        self.decode = nn.ConvTranspose2d(latent_channels, 3, factor, stride=factor)

    @torch.no_grad()
    def start_as(self, mean, axes, variances):
        shape = self.encode.weight.shape
        sd = variances.sqrt()
        self.encode.weight.copy_(({weight}).reshape(shape))
        self.encode.bias.copy_({bias})
        self.decode.weight.copy_(({back}).reshape(shape))
        self.decode.bias.copy_({colour})
"""


def vae(
    mean: str = "mean + self.linear.encode(p) if self.linear else mean",
    moments: str = "self.to_moments(self.encoder(p))",
    logvar: str = "logvar",
    decoded: str = "self.decoder(self.from_latent(z))",
    result: str = "((d + self.linear.decode(z) if self.linear else d) + 1) / 2",
    posterior: str = "DiagonalGaussian(mean, logvar)",
    sizes: str = "check_size(x, self.config.factor)",
) -> str:
    return f"""
class ConvVAE(conv_vae.ConvVAE):
    def start_as(self, linear):
        return super().start_as(linear)

    def encode(self, x):
        {sizes}
        p = 2 * x - 1
        mean, logvar = {moments}.chunk(2, dim=1)
        mean = {mean}
        return {posterior}

    def decode(self, z):
        d = {decoded}
        return {result}

    def forward(self, x, generator=None):
        posterior = self.encode(x)
        z = posterior.sample(generator)
        return VAEOutput(self.decode(z), posterior, z)

    def set_gradient_checkpointing(self, on=True, function=RECOMPUTE):
        return super().set_gradient_checkpointing(on, function)
"""


def hinge(formula: str) -> str:
    return f"""
def hinge_loss(real, fake):
    a, b = (1 - real).flatten(1), (1 + fake).flatten(1)
    return {formula}
"""


def equivariance(formula: str, mode: str = "area", result: str = "return") -> str:
    return f"""
def equivariance_error(model, z, x):
    shrink = lambda t: F.interpolate(t, scale_factor=0.5, mode={mode!r})
    {result} {formula}
"""


WRONG: dict[str, list[tuple[str, str]]] = {
    "linear_shortcut": [
        (linear(bias="torch.zeros_like(sd)"), "The mean stays in the code"),
        (linear(bias="(mean @ axes) / sd"), "the wrong sign"),
        (linear("axes.T", "-(mean @ axes)"), "The codes have the axes' variances"),
        (linear("axes.T"), "and the weights are not"),
        (linear(bias="-(mean @ axes)"), "Divide the bias by the standard deviation"),
        (linear("(axes / variances).T", "-(mean @ axes) / variances"), "divide by its root"),
        (linear("(axes / sd).flip(0).T"), "The code of a block should be"),
        (linear(colour="torch.zeros(3)"), "lacks the mean"),
        (linear(back="axes.T"), "nothing is multiplied by"),
        (linear(back="(axes / sd).T"), "On the way back multiply"),
        (linear(back="(axes * sd).flip(0).T"), "The way back should be"),
    ],
    "conv_vae": [
        (vae(moments="self.to_moments(self.encoder(x))"), "The encoder sees pixels"),
        (vae(posterior="DiagonalGaussian(logvar, mean)"), "have changed places"),
        (vae(moments="self.encoder(p)"), "`to_moments` is missing"),
        (vae(mean="mean"), "add self.linear.encode(pixels)"),
        (vae(mean="mean + self.linear.encode(x) if self.linear else mean"), "in [-1, 1], too"),
        (vae(posterior="mean, logvar"), "should return DiagonalGaussian"),
        (vae(posterior="DiagonalGaussian(mean, logvar + 1)"), "should stay the encoder's"),
        (vae(decoded="self.decoder(z)"), "`from_latent` is missing"),
        (vae(result="d + self.linear.decode(z) if self.linear else d"), "add 1 and halve"),
        (vae(result="(d + 1) / 2"), "add self.linear.decode(z)"),
        (
            vae(result="(d + 1) / 2 + (self.linear.decode(z) if self.linear else 0)"),
            "before you go from [-1, 1]",
        ),
        (
            vae(result="(((d + self.linear.decode(z) if self.linear else d) + 1) / 2).clamp(0, 1)"),
            "Do not clamp",
        ),
        (vae(sizes="pass"), "should begin with check_size"),
    ],
    "hinge_loss": [
        (hinge("F.relu(a).mean(1) + F.relu(b).mean(1)"), "Half of it"),
        (
            "def hinge_loss(real, fake): return 0.5 * (F.relu(1 - fake).flatten(1).mean(1) "
            "+ F.relu(1 + real).flatten(1).mean(1))",
            "Real and fake have changed places",
        ),
        (hinge("0.5 * (F.relu(a).sum(1) + F.relu(b).sum(1))"), "you added them"),
        (hinge("0.5 * (a.mean(1) + b.mean(1))"), "earns nothing more"),
        (hinge("0.5 * (F.relu(a - 1).mean(1) + F.relu(b - 1).mean(1))"), "The margin of 1"),
        (hinge("0.5 * (F.relu(a).mean() + F.relu(b).mean())"), "One number per image"),
        (hinge("0.5 * (F.relu(a) + F.relu(b))"), "should have shape"),
        (hinge("F.softplus(a).mean(1)"), "The first is"),
    ],
    "equivariance_error": [
        (
            equivariance("(shrink(model.decode(z)) - shrink(x)).square().flatten(1).mean(1)"),
            "You shrank the decoded picture",
        ),
        (
            equivariance(
                "(model.decode(shrink(z)) - shrink(x)).square().flatten(1).mean(1)", "nearest"
            ),
            "You dropped three values",
        ),
        (
            equivariance("(model.decode(shrink(z)) - shrink(x)).abs().flatten(1).mean(1)"),
            "Squared errors",
        ),
        (
            equivariance("(model.decode(shrink(z)) - shrink(x)).square().flatten(1).sum(1)"),
            "you added them",
        ),
        (
            equivariance("(model.decode(shrink(z)) - shrink(x)).square().mean()"),
            "One number per image",
        ),
        (
            equivariance(
                "(model.decode(shrink(z.detach())) - shrink(x)).square().flatten(1).mean(1)"
            ),
            "No gradient reaches",
        ),
        (
            equivariance("(model.decode(z) - x).square().flatten(1).mean(1)"),
            "The first is",
        ),
    ],
    "weight_in_nats": [
        (nats("weight * values / mse"), "Twice too much"),
        (nats("2 * mse / (weight * values)"), "Upside down"),
        (nats("weight / (2 * mse)"), "left out `values`"),
        (nats("weight * values / 2"), "left out `mse`"),
        (nats("weight * values / (2 * math.sqrt(mse))"), "σ for σ²"),
        (nats("weight / (2 * mse * values)"), "β is 14.4"),
    ],
    "ScaledResBlock": [
        (block("self.scale * s + h"), "scaled the shortcut"),
        (block("self.scale * (s + h)"), "scaled the sum"),
        (block("self.scale * h"), "lost the shortcut"),
        (block("s + h"), "factor is not used"),
        (block("s + self.scale * h", scale="start"), "no new parameter"),
        (
            block("s + self.scale * h", scale="nn.Parameter(torch.tensor(1.0))"),
            "should be 0.25, not 1",
        ),
        (
            block("s + self.scale * h", scale="nn.Parameter(torch.full((outputs, 1, 1), start))"),
            "you added 8",
        ),
        (block("s + self.scale.item() * h"), "gets no gradient"),
        (block("s + self.scale * (h - bias) + bias"), "the bias of conv2"),
        (block("x", base="nn.Module"), "layers are missing"),
        (block("s + self.scale * h"), "every gradient is 0, for ever"),
    ],
    "my_dog_vae": [
        (untrained("model.to_moments.weight.zero_()"), "the noise is wider"),
        (untrained("model.to_moments.bias[4:] = -20"), "Not yet better than a linear code"),
        (untrained("model.to_moments.bias[8:] = -20", channels=8), "a twelfth"),
        (untrained("model.eval()", returned=""), "Return the trained model"),
        (LINEAR, "Begin with it, or train longer"),
        (UNSCALED, "Your decoder's pixels are in [-1, 1]"),
    ],
}
