"""The wrong answers to notebook 1's exercises; `tests.exercises.wrong_answers` says how."""


def network(
    *,
    encoder: str = "self.encoder = mlp(784, *hidden, latent)",
    decoder: str = "self.decoder = mlp(latent, *reversed(hidden), 784)",
    config: str = 'self.config = {"latent": latent, "hidden": list(hidden)}',
    encode: str = "return self.encoder(x.flatten(1))",
    decode: str = "return self.decoder(z).unflatten(1, (1, 28, 28))",
    forward: str = "return AutoencoderOutput(self.decode(z), z)",
) -> str:
    """The right class, but for one line."""
    return f"""
class Autoencoder(nn.Module):
    def __init__(self, latent=2, hidden=(512, 256)):
        super().__init__()
        {config}
        {encoder}
        {decoder}

    def encode(self, x):
        {encode}

    def decode(self, z):
        {decode}

    def forward(self, x, generator=None):
        z = self.encode(x)
        {forward}
"""


def components(mean: str = "x.mean(0)", found: str = "v[:k]", give: str = "mean, v") -> str:
    return f"""
def principal_components(x, k):
    mean = {mean}
    u, s, v = torch.linalg.svd(x - mean, full_matrices=False)
    v = {found}
    return {give}
"""


def layers(made: str, end: str = "return nn.Sequential(*layers)") -> str:
    return f"""
def mlp(*sizes):
    layers = []
    pairs = list(zip(sizes, sizes[1:]))
    {made}
    {end}
"""


def error(formula: str) -> str:
    return f"def sum_of_squares(image, x): return {formula}"


def guess(formula: str) -> str:
    return f"def first_loss(x): return {formula}"


def step(*lines: str) -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f"def training_step(model, optimizer, loss, batch):\n{body}\n"


MEAN = 'value = loss(model, batch, None)["loss"].mean()'
STEP = ("optimizer.zero_grad()", MEAN, "value.backward()", "optimizer.step()")


def again(
    inside: str, after: str = "return losses", kind: str = "torch.optim.Adam", count: str = "steps"
) -> str:
    return f"""
def overfit(model, loss, batch, steps, lr):
    optimizer, losses = {kind}(model.parameters(), lr), []
    for _ in range({count}):
        {inside}
    {after}
"""


ONE = "losses.append(training_step(model, optimizer, loss, batch))"


def noisy(formula: str) -> str:
    return f"""
def add_gaussian_noise(x, sigma, generator):
    b, c, h, w = x.shape
    def randn(*shape): return torch.randn(shape, generator=generator)
    def rand(*shape): return torch.rand(shape, generator=generator)
    return {formula}
"""


def sampled(formula: str, fit: str = "torch.linalg.cholesky(torch.cov(codes.T))") -> str:
    return f"""
class GaussianCodes:
    def __init__(self, codes):
        self.codes = codes
        self.mean = codes.mean(0)
        self.root = {fit}

    def sample(self, count, generator=None):
        noise = torch.randn(count, len(self.mean), generator=generator)
        return {formula}
"""


WRONG: dict[str, list[tuple[str, str]]] = {
    "principal_components": [
        (components(mean="torch.zeros(x.shape[1])"), "The mean should be the mean image"),
        (
            components(found="torch.linalg.svd(x, full_matrices=False)[2][:k]"),
            "You did not centre",
        ),
        (components(found="v[:k].T"), "Your directions are columns, (35, 4)"),
        (components(found="v[:, :k].T"), "You cut columns out of Vᵀ"),
        (components(found="v"), "For k = 4 the directions should have shape (4, 35)"),
        (components(found="v[-k:]"), "You kept the last directions"),
        (components(found="s[:k, None] * v[:k]"), "leave the singular values out"),
        (components(found="(x - mean) @ v[:k].T"), "These are the codes of the images"),
        (components(found="v[:k].flip(0)"), "not those of scikit-learn's PCA"),
        (components(give="v"), "Return two things"),
        (components(give="mean, v.numpy()"), "yours is of type ndarray"),
        (components(mean="x.sub_(x.mean(0)).mean(0)"), "You changed the caller's images"),
    ],
    "mlp": [
        (
            layers("for a, b in pairs: layers += [nn.Linear(a, b), nn.ReLU()]"),
            "No ReLU after the last layer",
        ),
        (
            layers("for a, b in pairs: layers += [nn.Linear(a, b)]"),
            "mlp(5, 7, 3) needs 1, and yours has 0",
        ),
        (layers("layers = [nn.Linear(sizes[0], sizes[-1])]"), "should have linear layers [(5, 7)"),
        (
            layers(
                "for a, b in pairs: layers += [nn.Tanh(), nn.Linear(a, b)]",
                "return nn.Sequential(*layers[1:])",
            ),
            "and not ['Tanh']",
        ),
        (
            layers(
                "for a, b in pairs: layers += [nn.ReLU(), nn.Linear(a, b, bias=False)]",
                "return nn.Sequential(*layers[1:])",
            ),
            "with its bias",
        ),
        (
            layers(
                "for a, b in pairs: layers += [nn.ReLU(), nn.Linear(a, b)]", "return layers[1:]"
            ),
            "yours is of type list",
        ),
        (layers("pass", "pass"), "yours is None"),
        ("mlp = nn.Sequential()", "Your code raised"),
    ],
    "autoencoder": [
        (
            network(encoder="self.down = mlp(784, *hidden, latent)"),
            "no weights `encoder`, and shipped checkpoints do. They do not know your `down`.",
        ),
        (
            network(decoder="self.decoder = mlp(latent, *hidden, 784)"),
            "`decoder.0.weight` should have shape (256, 2), and yours has (512, 2)",
        ),
        (
            network(encoder="self.encoder = mlp(784, 512, 256, latent)"),
            "In Autoencoder(latent=3, hidden=(40, 24)) `encoder.0.weight`",
        ),
        (
            network(encoder="self.encoder = list(mlp(784, *hidden, latent))"),
            "`encoder` is of type list, whose weights PyTorch does not see",
        ),
        (
            network(encoder="self.encoder = mlp(784, *hidden, latent, latent)"),
            "has weights `encoder.6`, which shipped checkpoints do not know",
        ),
        (network(config="pass"), "and yours has none: checkpoints store it"),
        (network(config="self.config = latent, hidden"), "and yours is (2, (512, 256))"),
        (network(encode="return self.encoder(x.flatten(1)).relu()"), "a code may be any number"),
        (network(encode="self.encoder(x.flatten(1))"), "should be a tensor, and yours is None"),
        (network(decode="return self.decoder(z)"), "should have shape (7, 1, 28, 28)"),
        (
            network(decode="return self.decoder(z).sigmoid().unflatten(1, (1, 28, 28))"),
            "returns logits: the sigmoid",
        ),
        (
            network(decode="return self.decoder(z).relu().unflatten(1, (1, 28, 28))"),
            "a ReLU cuts the negative ones off",
        ),
        (
            network(decode="return self.decoder(-z).unflatten(1, (1, 28, 28))"),
            "what `self.decoder` makes of z",
        ),
        (network(forward="return self.decode(z), z"), "AutoencoderOutput(decoded, z)"),
        (network(forward="return AutoencoderOutput(z, self.decode(z))"), "You swapped them"),
        (network(forward="return AutoencoderOutput(self.decode(-z), z)"), "and return both"),
        (network().replace("def forward", "def reconstruct"), "Your class has no `forward`"),
        ("class Autoencoder: pass", "should be a network: `class Autoencoder(nn.Module):`"),
        (network() + "Autoencoder = Autoencoder()", "Hand over the class `Autoencoder` itself"),
        ("Autoencoder = None", "should be a class, and yours is None"),
    ],
    "sum_of_squares": [
        (error("(image - x).square().sum()"), "One number for the whole batch"),
        (error("(image - x).square().flatten(1).mean(1)"), "averaged over the pixels"),
        (error("(image - x).flatten(1).norm(dim=1)"), "square root"),
        (error("(image - x).square().sum(dim=(1, 2))"), "should have shape"),
        (error("(image - x).abs().flatten(1).sum(1)"), "absolute values"),
        (error("(image - x).flatten(1).sum(1).square()"), "Square each difference first"),
        (error("image.square().flatten(1).sum(1)"), "The first image's error"),
        (error("(image - x).square().flatten(1).sum(1).numpy()"), "yours is of type ndarray"),
        (error("list((image - x).square().flatten(1).sum(1))"), "yours is of type list"),
        (
            "def sum_of_squares(image, x): (image - x).square().flatten(1).sum(1)",
            "returns nothing",
        ),
    ],
    "first_loss": [
        (guess("784 / 4"), "One number for the whole batch"),
        (guess("x[0].numel() / 4"), "right for black and white alone"),
        (guess("torch.full((len(x),), x[0].numel() / 4)"), "black and white pixels alone"),
        (guess("(0.5 - x).square().flatten(1).mean(1)"), "averaged over the pixels"),
        (guess("x.square().flatten(1).sum(1)"), "the sigmoid of 0 is ½"),
        (guess("(0.5 - x).abs().flatten(1).sum(1)"), "squares the differences"),
        (guess("(0.5 - x).square().flatten(1).sum(1).tolist()"), "yours is of type list"),
        (guess("(1 - x).square().flatten(1).sum(1)"), "For the first image Σ(½ − x)² is"),
        ("def first_loss(x): (0.5 - x).square().flatten(1).sum(1)", "returns nothing"),
    ],
    "training_step": [
        (step(*STEP[1:], "return value.item()"), "did not forget the last step's gradient"),
        (
            step(STEP[0], MEAN.replace("mean", "sum"), *STEP[2:], "return value.item()"),
            "You summed the losses over the batch",
        ),
        (step(STEP[0], MEAN, STEP[2], "return value.item()"), "No weight has changed: optimizer"),
        (
            step(MEAN, STEP[2], STEP[0], STEP[3], "return value.item()"),
            "zero_grad comes before backward()",
        ),
        (step(STEP[0], MEAN, STEP[3], "return value.item()"), "no gradient was computed"),
        (
            step(STEP[0], MEAN, "(-value).backward()", STEP[3], "return value.item()"),
            "Your loss goes up",
        ),
        (
            step(*STEP[:3], "optimizer.step(); optimizer.step()", "return value.item()"),
            "The weights are not those",
        ),
        (step(*STEP), "returns nothing: return the mean loss"),
        (step(*STEP, "return value"), "a plain number, value.item()"),
        (step(*STEP, "return [value.item()]"), "and not as list"),
        (step(*STEP, "return value.item() * len(batch['images'])"), "the sum of the losses"),
        (
            step(*STEP, 'return loss(model, batch, None)["loss"].mean().item()'),
            "the loss after the step",
        ),
        (step(*STEP, "return 0.0"), "The mean loss was"),
    ],
    "overfit": [
        (again(ONE, "return losses[-1]"), "the losses of all steps"),
        (again(ONE, "pass"), "returns nothing"),
        (again(ONE, "return torch.tensor(losses)"), "as a list, and not as Tensor"),
        (again(ONE, count="12"), "Asked for 7 steps, you return 12"),
        (
            again(ONE.replace("optimizer", "torch.optim.Adam(model.parameters(), lr)")),
            "Make the optimiser once",
        ),
        (again(ONE, kind="torch.optim.SGD"), "plain gradient descent"),
        (again(ONE, kind="torch.optim.Adamax"), "steps of Adam with lr 0.05 the loss should be"),
        (
            again('losses.append(loss(model, batch, None)["loss"].mean().item())'),
            "The model was not trained",
        ),
        (
            again('losses.append(loss(model, batch, None)["loss"].mean())'),
            "should be plain numbers",
        ),
    ],
    "add_gaussian_noise": [
        (noisy("x + sigma * randn(b, c, h, w)"), "left [0, 1]"),
        (noisy("(x + sigma * randn(c, h, w)).clamp(0, 1)"), "All images got the same noise"),
        (noisy("(x + sigma * randn(b, 1, h, w)).clamp(0, 1)"), "All channels got the same noise"),
        (noisy("(x + sigma * randn(b, c, 1, w)).clamp(0, 1)"), "All rows got the same noise"),
        (noisy("(x + sigma * randn(b, c, h, 1)).clamp(0, 1)"), "All columns got the same noise"),
        (noisy("(x + sigma**2 * randn(b, c, h, w)).clamp(0, 1)"), "yours has 0.050 times that"),
        (noisy("(x + sigma * (randn(b, c, h, w) + 0.1)).clamp(0, 1)"), "brighter or darker"),
        (
            noisy("(x + sigma * 12**0.5 * (rand(b, c, h, w) - 0.5)).clamp(0, 1)"),
            "not a normal distribution",
        ),
        (noisy("x.add_(sigma * randn(b, c, h, w)).clamp_(0, 1)"), "changed the caller's images"),
        (
            noisy("(x + sigma * torch.randn(x.shape)).clamp(0, 1)"),
            "You did not use `generator`: given the same one twice",
        ),
        (
            noisy("(x + sigma * torch.randn(x.shape, generator=generator_for(0))).clamp(0, 1)"),
            "another one changes nothing",
        ),
        (noisy("(x + sigma * randn(b, c, h, w)).clamp(0, 1).numpy()"), "yours is of type ndarray"),
        (noisy("None"), "yours is None"),
    ],
    "gaussian_codes": [
        (sampled("self.mean + self.codes.std(0) * noise"), "independently"),
        (sampled("noise @ self.root.T"), "mean is off"),
        (sampled("self.mean + noise @ self.root"), "noise @ L has not"),
        (
            sampled("self.mean + noise @ self.root.T", "torch.cov(codes.T)"),
            "multiply by its root",
        ),
        (sampled("self.mean + noise"), "the covariance of plain noise"),
        (sampled("self.mean + 1.2 * noise @ self.root.T"), "The first dimension's variance"),
        (
            sampled("self.codes[torch.randint(len(self.codes), (count,), generator=generator)]"),
            "These are codes of the training set",
        ),
        (
            sampled("self.mean + torch.randn(noise.shape) @ self.root.T"),
            "You did not use `generator`",
        ),
        (sampled("(self.mean + noise @ self.root.T).T"), "should have shape (20000, 3)"),
        (sampled("None"), "yours is None"),
        ("def GaussianCodes(codes): return codes", "should be a class"),
    ],
    "my_autoencoder": [
        (
            "def my_autoencoder(train): return Autoencoder(latent=16).eval()",
            "should have shape (200, 8)",
        ),
        ("def my_autoencoder(train): return Autoencoder(latent=8).eval()", "train longer"),
        ("def my_autoencoder(train): Autoencoder(latent=8)", "returns nothing"),
        ("def my_autoencoder(train): return 3", "Return the trained model"),
    ],
}
