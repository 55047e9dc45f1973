"""The wrong answers to notebook 06's exercises; `tests.wrong_answers` says how they are written."""


def shape(formula: str) -> str:
    return f"def latent_shape(latent_channels, block_out_channels, height, width): return {formula}"


def renamed(body: str) -> str:
    return f"""
def rename_key(key):
    inside = key.startswith("encoder.stages.") and ".blocks." in key
    new = key.replace("encoder.stages.", "encoder.down_blocks.").replace(".blocks.", ".resnets.")
    {body}
"""


def scale(formula: str) -> str:
    return f"def measured_scale(mean, std): return {formula}"


def blended(share: str, mixed: str = "(1 - s) * left[..., -overlap:] + s * right[..., :overlap]") -> str:
    return f"""
def blend(left, right, overlap):
    s = {share}
    return torch.cat([left[..., :-overlap], {mixed}, right[..., overlap:]], dim=3)
"""


RISING = "torch.arange(1, overlap + 1) / (overlap + 1)"

WRONG: dict[str, list[tuple[str, str]]] = {
    "latent_shape": [
        (shape("(latent_channels, height // 2 ** len(block_out_channels), width // 2 ** len(block_out_channels))"), "halve 3 times"),
        (shape("(latent_channels, height // 8, width // 8)"), "Stable Diffusion's factor"),
        (
            shape("(latent_channels, width // 2 ** (len(block_out_channels) - 1), height // 2 ** (len(block_out_channels) - 1))"),
            "swapped height and width",
        ),
        (shape("(height // 2 ** (len(block_out_channels) - 1), width // 2 ** (len(block_out_channels) - 1))"), "channels are missing"),
        (shape("(latent_channels, height / 2 ** (len(block_out_channels) - 1), width / 2 ** 3)"), "divide with //"),
        (shape("latent_channels"), "should be (channels, height, width)"),
    ],
    "rename_key": [
        (renamed("return new if inside else key"), "called conv_shortcut"),
        (renamed("return key"), "stays as it is"),
        (renamed("return new.replace('.shortcut.', '.conv_shortcut.')"), "A resampling is no residual block"),
        (
            renamed("return key.replace('stages', 'down_blocks').replace('blocks.', 'resnets.').replace('.shortcut', '.conv_shortcut')"),
            "should become encoder.down_blocks.0.resnets.0",
        ),
        (
            renamed("return new.replace('.shortcut.', '.conv_shortcut.') if inside else key.replace('decoder.stages', 'decoder.up_blocks')"),
            "The decoder is not meant",
        ),
        (renamed("new"), "returns None"),
    ],
    "linear_dictionary": [
        (
            "def linear_dictionary(a, b): return torch.linalg.lstsq(a, b).solution, torch.zeros(b.shape[1])",
            "forced the map through 0",
        ),
        (
            "def linear_dictionary(a, b):\n    s = torch.linalg.lstsq(torch.cat([a, torch.ones(len(a), 1)], 1), b).solution\n"
            "    return s[:-1].T, s[-1]",
            "turned over",
        ),
        (
            "def linear_dictionary(a, b):\n    m = torch.linalg.lstsq(a - a.mean(0), b - b.mean(0)).solution\n    return m, b.mean(0)",
            "not mean(b) alone",
        ),
        (
            "def linear_dictionary(a, b):\n    m = torch.eye(a.shape[1])[:, :b.shape[1]]\n    return m, b.mean(0) - a.mean(0) @ m",
            "The least squared error is",
        ),
        ("def linear_dictionary(a, b): return torch.linalg.lstsq(a, b).solution", "should be two tensors"),
    ],
    "measured_scale": [
        (scale("(mean.var() + std.square().mean()).sqrt()"), "Upside down"),
        (scale("1 / mean.std()"), "left the noise out"),
        (scale("1 / std.mean()"), "left the means out"),
        (scale("1 / (mean.std() + std.mean())"), "Spreads do not add up"),
        (scale("1 / (mean.var() + std.square().mean())"), "divided by the variance"),
        (scale("1 / (mean.var(dim=(0, 2, 3)).mean() + std.square().mean()).sqrt()"), "own mean off"),
        (scale("1 / (mean.var(dim=(0, 2, 3)) + std.square().mean()).sqrt()"), "yours are 3"),
        (scale("0.18215"), "Draws from these posteriors"),
    ],
    "blend": [
        ("def blend(left, right, overlap): return torch.cat([left, right], dim=3)", "side by side"),
        (blended("0.5"), "grow from column to column"),
        (blended(f"1 - {RISING}"), "Turned round"),
        (blended("torch.linspace(0, 1, overlap)"), "one picture has no share"),
        (blended(RISING, "(1 - s) * left[..., :overlap] + s * right[..., :overlap]"), "last columns first"),
        ("def blend(left, right, overlap): return (left[..., : right.shape[3]] + right[..., : left.shape[3]]) / 2", "should have shape"),
        (
            "def blend(left, right, overlap):\n    out = torch.cat([left, right[..., overlap:]], dim=3)\n"
            "    return out * torch.linspace(0.5, 1, out.shape[3])",
            "Outside the overlap",
        ),
    ],
    "my_cure": [
        ("def my_cure(old, mine): return copy.deepcopy(mine)", "no better than before"),
        ("def my_cure(old, mine): return old", "the pipeline's own decoder"),
        ("def my_cure(old, mine): return None", "Return the cured VAE"),
        (
            "def my_cure(old, mine):\n    with torch.no_grad():\n        mine.from_latent.weight.mul_(0.9)\n    return mine",
            "You changed `mine` itself",
        ),
    ],
}
