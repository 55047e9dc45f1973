"""The wrong answers to notebook 9's exercises; `tests.exercises.wrong_answers` says how."""


def shape(formula: str) -> str:
    return f"""
def latent_shape(latent_channels, block_out_channels, height, width):
    levels = len(block_out_channels)
    factor = 2 ** (levels - 1)
    return {formula}
"""


def renamed(body: str) -> str:
    return f"""
def rename_key(key):
    inside = key.startswith("encoder.stages.") and ".blocks." in key
    new = key.replace("encoder.stages.", "encoder.down_blocks.").replace(".blocks.", ".resnets.")
    whole = new.replace(".shortcut.", ".conv_shortcut.")
    {body}
"""


def dictionary(matrix: str, offset: str) -> str:
    return f"""
def linear_dictionary(a, b):
    with_ones = torch.linalg.lstsq(torch.cat([a, torch.ones(len(a), 1)], 1), b).solution
    centred = torch.linalg.lstsq(a - a.mean(0), b - b.mean(0)).solution
    eye = torch.eye(a.shape[1])[:, :b.shape[1]]
    return {matrix}, {offset}
"""


def scale(formula: str) -> str:
    return f"def measured_scale(mean, std): return {formula}"


def blended(
    share: str, mixed: str = "(1 - s) * left[..., -overlap:] + s * right[..., :overlap]"
) -> str:
    return f"""
def blend(left, right, overlap):
    s = {share}
    return torch.cat([left[..., :-overlap], {mixed}, right[..., overlap:]], dim=3)
"""


RISING = "torch.arange(1, overlap + 1) / (overlap + 1)"

WRONG: dict[str, list[tuple[str, str]]] = {
    "latent_shape": [
        (shape("(latent_channels, height // 2**levels, width // 2**levels)"), "halve 3 times"),
        (shape("(latent_channels, height // 8, width // 8)"), "Stable Diffusion's factor"),
        (shape("(latent_channels, width // factor, height // factor)"), "swapped"),
        (shape("(height // factor, width // factor)"), "channels are missing"),
        (shape("(latent_channels, height / factor, width / factor)"), "divide with //"),
        (shape("(block_out_channels[-1], height // factor, width // factor)"), "last level's"),
        (shape("latent_channels"), "should be (channels, height, width)"),
    ],
    "rename_key": [
        (renamed("return new if inside else key"), "called conv_shortcut"),
        (renamed("return key"), "stays as it is"),
        (renamed("return whole"), "A resampling is no residual block"),
        (
            renamed("return key.replace('stages', 'down_blocks').replace('blocks.', 'resnets.')"),
            "should become encoder.down_blocks.0.resnets.0",
        ),
        (
            renamed("return whole if inside else key.replace('decoder.stages', 'decoder.up')"),
            "The decoder is not meant",
        ),
        (renamed("new"), "returns None"),
    ],
    "linear_dictionary": [
        (
            dictionary("torch.linalg.lstsq(a, b).solution", "torch.zeros(b.shape[1])"),
            "forced the map through 0",
        ),
        (dictionary("with_ones[:-1].T", "with_ones[-1]"), "turned over"),
        (dictionary("centred", "b.mean(0)"), "not mean(b) alone"),
        (dictionary("eye", "b.mean(0) - a.mean(0) @ eye"), "The least squared error is"),
        (
            "def linear_dictionary(a, b): return torch.linalg.lstsq(a, b).solution",
            "should be two tensors",
        ),
    ],
    "measured_scale": [
        (scale("(mean.var() + std.square().mean()).sqrt()"), "Upside down"),
        (scale("1 / mean.std()"), "left the noise out"),
        (scale("1 / std.mean()"), "left the means out"),
        (scale("1 / (mean.std() + std.mean())"), "Spreads do not add up"),
        (scale("1 / (mean.var() + std.square().mean())"), "divided by the variance"),
        (
            scale("1 / (mean.var(dim=(0, 2, 3)).mean() + std.square().mean()).sqrt()"),
            "own mean off",
        ),
        (scale("1 / (mean.var(dim=(0, 2, 3)) + std.square().mean()).sqrt()"), "yours are 3"),
        (scale("0.18215"), "Draws from these posteriors"),
    ],
    "blend": [
        ("def blend(left, right, overlap): return torch.cat([left, right], dim=3)", "side by side"),
        (blended("0.5"), "grow from column to column"),
        (blended(f"1 - {RISING}"), "Turned round"),
        (blended("torch.linspace(0, 1, overlap)"), "one picture has no share"),
        (
            blended(RISING, "(1 - s) * left[..., :overlap] + s * right[..., :overlap]"),
            "last columns first",
        ),
        ("def blend(left, right, overlap): return left + right[..., :1]", "should have shape"),
        (
            blended(RISING) + "\nright_half = blend\n"
            "def blend(left, right, overlap): return right_half(left, right / 2, overlap)",
            "Outside the overlap",
        ),
    ],
    "my_cure": [
        ("def my_cure(old, mine): return copy.deepcopy(mine)", "no better than before"),
        ("def my_cure(old, mine): return old", "the pipeline's own decoder"),
        ("def my_cure(old, mine): return None", "Return the cured VAE"),
        (
            "def my_cure(old, mine):\n"
            "    with torch.no_grad():\n"
            "        mine.from_latent.weight.mul_(0.9)\n"
            "    return mine",
            "You changed `mine` itself",
        ),
    ],
}
