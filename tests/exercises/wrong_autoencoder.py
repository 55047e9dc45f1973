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


def pca(project: str, mean: str = "x.mean(0)") -> str:
    return f"""
def pca_reconstruct(x, k):
    mean = {mean}
    v = torch.linalg.svd(x - mean, full_matrices=False)[2]
    return {project}
"""


def noisy(formula: str) -> str:
    return f"""
def add_gaussian_noise(x, sigma, generator):
    def randn(*shape): return torch.randn(shape, generator=generator)
    def rand(*shape): return torch.rand(shape, generator=generator)
    return {formula}
"""


def sampled(formula: str) -> str:
    return f"""
def sample_codes(codes, count, generator):
    noise = torch.randn(count, codes.shape[1], generator=generator)
    root = torch.linalg.cholesky(torch.cov(codes.T))
    return {formula}
"""


def counted(formula: str) -> str:
    return f"def count_parameters(model): return {formula}"


def error(formula: str) -> str:
    return f"def squared_error(x, y): return {formula}"


WRONG: dict[str, list[tuple[str, str]]] = {
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
    "count_parameters": [
        (counted("len(list(model.parameters()))"), "counted the tensors"),
        (counted("sum(p.numel() for p in model.parameters() if p.ndim > 1)"), "weights alone"),
        (counted("sum(t.numel() for t in model.state_dict().values())"), "counted buffers"),
        (counted("0"), "and you found 0"),
    ],
    "squared_error": [
        (error("(x - y).square().sum()"), "One number for the whole batch"),
        (error("(x - y).square().flatten(1).mean(1)"), "averaged over the pixels"),
        (error("(x - y).flatten(1).norm(dim=1)"), "square root"),
        (error("(x - y).square().sum(dim=(1, 2))"), "should have shape"),
        (error("(x - y).abs().flatten(1).sum(1)"), "The first image's error"),
        (error("(x - y).square().flatten(1).sum(1).numpy()"), "yours is of type ndarray"),
    ],
    "pca_reconstruct": [
        (pca("x @ v[:k].T @ v[:k]", mean="0"), "did not centre"),
        (pca("(x - mean) @ v[:k].T @ v[:k]"), "add the mean back"),
        ("def pca_reconstruct(x, k): return x", "kept everything"),
        (pca("mean + (x - mean) @ v[:, :k] @ v[:, :k].T"), "differs from scikit-learn"),
    ],
    "add_gaussian_noise": [
        (noisy("x + sigma * randn(*x.shape)"), "left [0, 1]"),
        (noisy("(x + sigma * randn(*x.shape[1:])).clamp(0, 1)"), "same noise"),
        (noisy("(x + sigma**2 * randn(*x.shape)).clamp(0, 1)"), "0.1"),
        (
            noisy("(x + sigma * 12**0.5 * (rand(*x.shape) - 0.5)).clamp(0, 1)"),
            "not a normal distribution",
        ),
        (noisy("x.add_(sigma * randn(*x.shape)).clamp_(0, 1)"), "changed the caller's images"),
    ],
    "sample_codes": [
        (sampled("codes.mean(0) + codes.std(0) * noise"), "independently"),
        (sampled("noise @ root.T"), "mean is off"),
        (sampled("codes.mean(0) + noise @ root"), "covariance is off"),
    ],
    "my_autoencoder": [
        (
            "def my_autoencoder(train): return Autoencoder(latent=16).eval()",
            "should have shape (360, 8)",
        ),
        ("def my_autoencoder(train): return Autoencoder(latent=8).eval()", "train longer"),
        ("def my_autoencoder(train): Autoencoder(latent=8)", "Return the trained model"),
    ],
}
