"""The wrong answers to notebook 8's exercises; `tests.exercises.wrong_answers` says how."""


def parameters(formula: str) -> str:
    return f"def conv_parameters(inputs, outputs, kernel): return {formula}"


def field(start: int, step: str) -> str:
    return f"""
def receptive_field(layers):
    seen, jump = {start}, 1
    for kernel, stride in layers:
        {step}
    return seen
"""


def normalised(shape: str, dims: str, correction: int = 0) -> str:
    return f"""
def normalise_groups(x, groups):
    g = x.reshape({shape})
    mean = g.mean({dims}, keepdim=True)
    var = g.var({dims}, correction={correction}, keepdim=True)
    return ((g - mean) / (var + 1e-6).sqrt()).reshape(x.shape)
"""


def attention(formula: str) -> str:
    return f"""
def attend(q, k, v):
    scores, tokens, d = q @ k.transpose(1, 2), q.shape[1], q.shape[2]
    scaled = scores / math.sqrt(d)
    return {formula}
"""


def trace(
    shape: str = "(c, height // s, width // s)",
    sides: str = "1, *f, f[-1]",
    last: str = "2 * latent",
) -> str:
    return f"""
def shape_trace(config, height, width):
    n, latent = len(config.channels), config.latent_channels
    f = [2 ** min(i + 1, n - 1) for i in range(n)]  # 2, 4, 4
    widths = [config.channels[0], *config.channels, {last}]
    return [{shape} for c, s in zip(widths, [{sides}])]
"""


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


THUMBNAIL = """
class Thumbnail(ConvVAE):
    def encode(self, x):
        small = F.interpolate(x, size=9, mode="area")
        return DiagonalGaussian(small, torch.full_like(small, -20))

    def decode(self, z):
        return 2 * F.interpolate(z, size=32, mode="bicubic").clamp(0, 1) - 1

def my_dog_vae(train):
    return Thumbnail(VAEConfig.course(4))
"""

WRONG: dict[str, list[tuple[str, str]]] = {
    "conv_parameters": [
        (parameters("inputs * outputs * kernel**2"), "left out the bias"),
        (parameters("inputs * outputs * kernel + outputs"), "as high as it is wide"),
        (parameters("inputs * outputs * kernel**2 + inputs"), "for each input channel"),
        (parameters("outputs * kernel**2 + outputs"), "one filter in all"),
        (parameters("550"), "and you say 550"),
        ("def conv_parameters(inputs, outputs, kernel): inputs * outputs", "returns nothing"),
    ],
    "receptive_field": [
        (
            "def receptive_field(layers): return sum(kernel for kernel, _ in layers)",
            "windows overlap",
        ),
        (field(1, "seen += kernel - 1"), "left the strides out"),
        (
            field(0, "seen, jump = seen + (kernel - 1) * jump, jump * stride"),
            "One pixel is missing",
        ),
        (field(1, "jump *= stride; seen += (kernel - 1) * jump"), "own stride"),
        (field(1, "seen = (seen - 1) * stride + kernel"), "from the last layer"),
        (
            field(1, "seen, jump = seen + (kernel - 1) * jump, jump + stride - 1"),
            "(5, 2), (3, 1)] reaches 24",
        ),
        (field(24, "pass"), "[(3, 1)] reaches 3"),
    ],
    "normalise_groups": [
        (normalised("*x.shape[:2], -1", "2"), "each channel alone"),
        (normalised("len(x), -1", "1"), "all channels together"),
        (normalised("len(x), -1, groups, *x.shape[2:]", "(2, 3, 4)"), "groups of `groups`"),
        (normalised("len(x), groups, -1", "(0, 2)"), "over the batch too"),
        (normalised("len(x), groups, -1", "2", correction=1), "divided by n − 1"),
        (normalised("len(x), -1, groups", "1"), "PyTorch's first value"),
        (
            "def normalise_groups(x, groups): return F.group_norm(x, groups)",
            "Right but for a nearly flat",
        ),
    ],
    "attend": [
        (attention("scores.softmax(2) @ v"), "forgot to divide"),
        (attention("(scores / math.sqrt(tokens)).softmax(2) @ v"), "divided by √T"),
        (attention("(scores / d).softmax(2) @ v"), "divided by d"),
        (attention("scaled.softmax(1) @ v"), "the wrong axis"),
        (attention("scaled.transpose(1, 2).softmax(2) @ v"), "keys ask"),
        (attention("scaled @ v"), "bare scores"),
        (attention("scaled.softmax(0) @ v"), "PyTorch's first value"),
        (attention("scaled.exp() / scaled.exp().sum(2, keepdim=True) @ v"), "exp overflows"),
        (attention("scaled.softmax(2)"), "should have shape"),
    ],
    "shape_trace": [
        (trace(sides="1, *f[:-1], 2 * f[-1], 2 * f[-1]"), "last stage does not halve"),
        (trace("(c, width // s, height // s)"), "swapped height and width"),
        (trace(last="latent"), "a mean and a log-variance"),
        (trace("(c, height / s, width / s)"), "halve with //"),
        (trace(sides="1, *f"), "conv_in, 3 stages and conv_out"),
        (trace(sides="1, 1, *f"), "the real stage 1 gives"),
        (
            "def shape_trace(config, height, width): return config.latent_channels",
            "should be a list of shapes",
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
    ],
    "my_dog_vae": [
        (untrained("model.to_moments.weight.zero_()"), "the noise is wider"),
        (untrained("model.to_moments.bias[4:] = -20"), "Not yet better than a thumbnail"),
        (untrained("model.to_moments.bias[8:] = -20", channels=8), "a twelfth"),
        (untrained("model.eval()", returned=""), "Return the trained model"),
        (THUMBNAIL, "Your decoder's pixels are in [-1, 1]"),
    ],
}
