"""Checks of notebook 8's exercises; `helpers.exercises.check` says how a check works."""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from helpers.data.datasets import load_dogs
from helpers.data.image_set import ImageSet
from helpers.env import budget
from helpers.exercises.check import Rejected, close, exercise, expect_shape, reject, reject_mistakes
from helpers.metrics.images import psnr, reconstruct
from helpers.metrics.latents import latent_statistics
from helpers.models.blocks import EPS, ResBlock
from helpers.models.conv_vae import Encoder, VAEConfig
from helpers.models.losses import gaussian_nll
from helpers.rng import generator_for


@exercise
def conv_parameters(answer: Callable) -> str:
    """answer(inputs, outputs, kernel) -> the number of parameters of a convolution with bias."""
    reject_mistakes(
        answer(6, 10, 3),
        (540, "You left out the bias: one number for each output channel."),
        (
            190,
            "A filter is as high as it is wide: kernel · kernel weights for each pair of channels.",
        ),
        (
            546,
            "There is one bias for each output channel, and you have one for each input channel.",
        ),
        (
            100,
            "Each output channel has a filter for every input channel, "
            "and you have one filter in all.",
        ),
    )
    for sizes in ((6, 10, 3), (4, 7, 5)):
        truth = sum(p.numel() for p in nn.Conv2d(*sizes).parameters())
        got = answer(*sizes)
        reject(got == truth, f"PyTorch's Conv2d{sizes} has {truth} parameters, and you say {got}.")
    return "and the same number for a picture of any size."


def _pixels_seen(layers: list[tuple[int, int]]) -> int:
    """How many rows of the input the gradient of one output value of real convolutions reaches."""
    stack = nn.Sequential(*(nn.Conv2d(1, 1, kernel, stride) for kernel, stride in layers))
    for parameter in stack.parameters():
        nn.init.ones_(parameter)  # so that no two paths cancel
    x = torch.zeros(1, 1, 48, 60, requires_grad=True)
    stack(x)[0, 0, 1, 1].backward()
    return int(x.grad[0, 0].any(dim=1).sum())


@exercise
def receptive_field(answer: Callable) -> str:
    """answer([(kernel, stride), …]) -> how many pixels, along one side, one output value sees."""
    layers = [(4, 2), (3, 1), (5, 2), (3, 1)]
    truth = _pixels_seen(layers)
    with_own = [math.prod(stride for _, stride in layers[:number]) for number in range(1, 5)]
    own_stride = 1 + sum(
        (kernel - 1) * stride for (kernel, _), stride in zip(layers, with_own, strict=True)
    )
    forwards = functools.reduce(lambda seen, layer: (seen - 1) * layer[1] + layer[0], layers, 1)
    reject_mistakes(
        answer(list(layers)),
        (
            4 + 3 + 5 + 3,
            "You added the kernels; two layers of 3 see 5 pixels and not 6, "
            "because their windows overlap.",
        ),
        (
            1 + 3 + 2 + 4 + 2,
            "You left the strides out: behind a stride of 2, "
            "one step is two pixels of the picture.",
        ),
        (
            truth - 1,
            "One pixel is missing: a value without any layer already sees itself, so begin with 1.",
        ),
        (
            own_stride,
            "A layer's own stride does not widen its view; "
            "multiply by the strides of the layers before it.",
        ),
        (
            forwards,
            "(seen − 1) · stride + kernel is right, but it runs from the last layer to the first.",
        ),
    )
    for stack in ([(3, 1)], [(3, 1), (3, 1)], [(1, 1), (3, 2)], layers):
        got, truth = answer(list(stack)), _pixels_seen(stack)
        reject(
            got == truth, f"A gradient through {stack} reaches {truth} pixels, and you say {got}."
        )
    return "just as far as the gradients of real convolutions reach."


@exercise
def normalise_groups(answer: Callable) -> str:
    """answer(x (B, C, H, W), groups) -> x with mean 0 and variance 1 in each group of channels."""
    contrast, brightness = (
        torch.rand(5, 6, 1, 1, generator=generator_for("groups", i)) + 0.5 for i in (0, 1)
    )
    x = torch.randn(5, 6, 4, 7, generator=generator_for("groups")) * contrast + 3 * brightness
    x[4] *= 1e-3  # nearly flat: its variance is about eps
    got = answer(x.clone(), 2)
    expect_shape(got, (5, 6, 4, 7), "The output")
    grouped = x.unflatten(1, (2, 3))  # (B, groups, C / groups, H, W)

    def normalised(dims: tuple[int, ...], correction: int = 0) -> torch.Tensor:
        variance = grouped.var(dim=dims, correction=correction, keepdim=True) + EPS
        return ((grouped - grouped.mean(dim=dims, keepdim=True)) / variance.sqrt()).flatten(1, 2)

    reject_mistakes(
        got,
        (
            F.instance_norm(x, eps=EPS),
            "You normalised each channel alone; a group shares one mean and one variance.",
        ),
        (
            F.group_norm(x, 1, eps=EPS),
            "You normalised all channels together; cut them into `groups` groups first.",
        ),
        (
            F.group_norm(x, 3, eps=EPS),
            "You made groups of `groups` channels; make `groups` groups.",
        ),
        (
            normalised((0, 2, 3, 4)),
            "You averaged over the batch too: a dog would depend on the dogs beside it.",
        ),
        (
            normalised((2, 3, 4), 1),
            "You divided by n − 1; GroupNorm divides its variance by n (`correction=0`).",
        ),
    )
    truth = F.group_norm(x, 2, eps=EPS)
    reject(
        close(got[:4], truth[:4]),
        f"PyTorch's first value is {truth[0, 0, 0, 0]:.4f}, yours is {got[0, 0, 0, 0]:.4f}.",
    )
    reject(
        close(got, truth),
        "Right but for a nearly flat image: add eps = 1e-6 to the variance, under the root.",
    )
    return "equal to PyTorch's GroupNorm, for a nearly flat image too."


@exercise
def attend(answer: Callable) -> str:
    """answer(q, k, v), each (B, T, d) -> one head of attention, (B, T, d)."""
    q, k, v = (torch.randn(3, 5, 7, generator=generator_for("attend", name)) for name in "qkv")
    got = answer(q, k, v)
    expect_shape(got, (3, 5, 7), "The output")
    scores = q @ k.transpose(1, 2)  # (3, 5, 5)
    scaled = scores / math.sqrt(7)
    reject_mistakes(
        got,
        (scores.softmax(2) @ v, "You forgot to divide the scores by √d."),
        (
            (scores / math.sqrt(5)).softmax(2) @ v,
            "You divided by √T, the number of tokens; divide by √d, the size of a query.",
        ),
        ((scores / 7).softmax(2) @ v, "You divided by d; divide by its root."),
        (
            scaled.softmax(1) @ v,
            "Your softmax runs over the wrong axis: "
            "each row, the weights of one query, adds up to 1.",
        ),
        (
            scaled.transpose(1, 2).softmax(2) @ v,
            "You have keys ask and queries answer: the scores are q kᵀ.",
        ),
        (scaled @ v, "You mixed the values with the bare scores; softmax makes weights of them."),
    )
    truth = F.scaled_dot_product_attention(q, k, v)
    reject(
        close(got, truth),
        f"PyTorch's first value is {truth[0, 0, 0]:.4f}, and yours is {got[0, 0, 0]:.4f}.",
    )
    reject(
        close(answer(500 * q, k, v), F.scaled_dot_product_attention(500 * q, k, v), 1e-3),
        "Right for small scores, wrong for large ones: exp overflows where torch.softmax does not.",
    )
    return "equal to PyTorch's scaled_dot_product_attention, for large scores too."


def _traced(config: VAEConfig, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """What each part of the real encoder gives, without computing a value: name -> (C, H, W)."""
    with torch.device("meta"):
        encoder, x = Encoder(config), torch.empty(1, 3, height, width)
    stages = {f"stage {number}": stage for number, stage in enumerate(encoder.stages, 1)}
    parts = {"conv_in": encoder.conv_in, **stages, "conv_out": encoder.conv_out}
    shapes = {}

    def note(name: str) -> Callable:
        return lambda module, given, out: shapes.update({name: tuple(out.shape[1:])})

    for name, part in parts.items():
        part.register_forward_hook(note(name))
    encoder(x)
    return shapes


@exercise
def shape_trace(answer: Callable) -> str:
    """answer(config, height, width) -> [(C, H, W), …] after conv_in, each stage, and conv_out."""
    three = VAEConfig.course(8, latent_channels=3)
    for config, height, width in (
        (VAEConfig.course(4), 64, 96),
        (three, 96, 64),
        (VAEConfig.stable_diffusion(), 512, 768),
    ):
        got, truth = answer(config, height, width), _traced(config, height, width)
        reject(
            isinstance(got, list | tuple),
            f"The answer should be a list of shapes, and yours is a {type(got).__name__}.",
        )
        reject(
            len(got) == len(truth),
            f"conv_in, {len(config.channels)} stages and conv_out give {len(truth)} shapes, "
            f"and you have {len(got)}.",
        )
        shapes = [tuple(shape) for shape in got]
        reject(
            all(isinstance(side, int) for shape in shapes for side in shape),
            "A shape has whole numbers, and yours has others: halve with //.",
        )
        reject(
            shapes != [(c, w, h) for c, h, w in truth.values()],
            "You swapped height and width: (C, H, W).",
        )
        reject(
            shapes[-1][0] != config.latent_channels,
            "conv_out gives a mean and a log-variance of each latent channel: "
            "twice as many channels.",
        )
        c, h, w = truth[f"stage {len(config.channels)}"]
        reject(
            shapes[-2] != (c, h // 2, w // 2),
            "The last stage does not halve: n levels are n − 1 halvings.",
        )
        for (name, true), yours in zip(truth.items(), shapes, strict=True):
            reject(
                yours == true,
                f"At {height}×{width} pixels the real {name} gives {true}, and you say {yours}.",
            )
    return "the same as in the real encoders, Stable Diffusion's included."


@exercise
def weight_in_nats(answer: Callable) -> str:
    """answer(weight, values, mse) -> β of the ELBO that "MSE + weight · KL" amounts to."""
    weight, values, mse = 1e-4, 2880, 0.01
    x = torch.rand(1, values, generator=generator_for("nats"), dtype=torch.float64)
    decoded = torch.zeros_like(x, requires_grad=True)
    in_nats = gaussian_nll(decoded, x, sigma=math.sqrt(mse)).sum()
    averaged = (x - decoded).square().mean()
    nats, mean = (torch.autograd.grad(a, decoded)[0].norm().item() for a in (in_nats, averaged))
    truth, got = weight * nats / mean, answer(weight, values, mse)
    reject_mistakes(
        got,
        (2 * truth, "Twice too much: a Gaussian's nats are squared error / (2 σ²)."),
        (1 / truth, "Upside down: what makes nats of the error multiplies the KL as well."),
        (
            truth / values,
            "You left out `values`: nats come from the sum, "
            "and the mean is that many times smaller.",
        ),
        (truth * mse, "You left out `mse`: σ² says how many nats an error costs."),
        (truth * math.sqrt(mse), "You took σ for σ²; the mean squared error is σ² already."),
    )
    reject(
        math.isclose(got, truth, rel_tol=1e-6),
        f"For (1e-4, 2880, 0.01) β is {truth:.4g}, and yours is {got:.4g}.",
    )
    return f"a weight of 0.0001 beside a mean over {values} values is β = {truth:.3g}."


@exercise
def ScaledResBlock(answer: Callable) -> str:
    """answer(inputs, outputs, groups, start) -> a ResBlock with a learned factor on its branch."""
    # 8 → 8: the shortcut is the identity
    for inputs, start in ((8, 0.25), (4, 0.25), (4, 1.0), (8, 0.0)):
        block, plain = answer(inputs, 8, groups=4, start=start), ResBlock(inputs, 8, groups=4)
        own, known = dict(block.named_parameters()), dict(plain.named_parameters())
        reject(
            known.keys() <= own.keys(),
            "ResBlock's layers are missing: call super().__init__(inputs, outputs, groups).",
        )
        added = [own[name] for name in own if name not in known]
        reject(
            len(added) > 0,
            "There is no new parameter: a plain number is not trained, an nn.Parameter is.",
        )
        count = sum(parameter.numel() for parameter in added)
        reject(count == 1, f"The factor should be one number, and you added {count}.")
        factor = added[0]
        reject(
            factor.item() == start,
            f"With start={start} the factor should be {start}, not {factor.item():g}.",
        )
        with torch.no_grad():  # fresh weights may be 0, which would hide mistakes
            for name, parameter in known.items():
                parameter.copy_(torch.randn(parameter.shape, generator=generator_for(name)))
                own[name].copy_(parameter)
        _compare_blocks(block, plain, factor, start)
    return "a ResBlock at 1, its shortcut at 0, and the factor learns."


def _compare_blocks(block: nn.Module, plain: ResBlock, factor: nn.Parameter, start: float) -> None:
    """`block` against what the unscaled block with the same weights gives."""
    x = torch.randn(2, plain.conv1.in_channels, 5, 7, generator=generator_for("branch"))
    shortcut, got = plain.shortcut(x).detach(), block(x)
    branch = plain(x).detach() - shortcut
    expect_shape(got, tuple(branch.shape), "The output")
    if start == 0.25:  # at 0 or 1 some mistakes give the right values
        reject_mistakes(
            got.detach(),
            (shortcut + branch, "The factor is not used: multiply the residual branch by it."),
            (
                start * (shortcut + branch),
                "You scaled the sum; the shortcut stays as it is, only the branch is multiplied.",
            ),
            (start * shortcut + branch, "You scaled the shortcut; multiply the other branch."),
            (start * branch, "You lost the shortcut: add it."),
        )
    truth = shortcut + start * branch
    reject(
        close(got, truth),
        f"With start={start} yours is not shortcut + {start} · branch, the bias of conv2 included.",
    )
    if got.requires_grad:
        got.square().sum().backward()
    slope = (2 * truth * branch).sum().view(1)
    reject(
        factor.grad is not None and close(factor.grad.flatten(), slope, 1e-3),
        "The factor gets no gradient, or a wrong one: "
        "use the parameter itself, without item() or detach().",
    )


_dogs = functools.cache(load_dogs)  # photographs take seconds to read; answers come repeatedly


@exercise
def my_dog_vae(answer: Callable) -> str:
    """answer(train) -> a trained VAE that beats a thumbnail of as many values on held-out dogs."""
    resolution = budget(quick=32, cpu=64, gpu=64)
    train, validation = _dogs(resolution, "train"), _dogs(resolution, "validation")
    model = answer(train)
    reject(
        isinstance(model, nn.Module),
        f"Return the trained model; yours is a {type(model).__name__}.",
    )
    stats, x = latent_statistics(model, validation), validation.pixels()
    most = x[0].numel() // 12
    reject(
        stats.dimensions <= most,
        f"Your latent has {stats.dimensions} dimensions; "
        f"a twelfth of the picture's values is {most}.",
    )
    reject(
        stats.noise.min() < 1,
        "In every latent channel the noise is wider than what the pictures change: "
        "train longer, or with a smaller beta.",
    )
    return _compare_with_thumbnail(model, stats.dimensions, validation)


def _compare_with_thumbnail(model: nn.Module, dimensions: int, validation: ImageSet) -> str:
    """The praise, or what is said of a model that is no better than a thumbnail enlarged."""
    x = validation.pixels()
    side = max(1, math.isqrt(dimensions // 3))  # each of a thumbnail's pixels has three values
    small = F.interpolate(x, size=side, mode="area")
    thumbnail = psnr(F.interpolate(small, size=x.shape[2:], mode="bilinear"), x).mean()
    yours = psnr(reconstruct(model, validation), x).mean()
    found = (
        f"held-out {yours:.2f} dB; {side}×{side} pixels, which are as many values, enlarged: "
        f"{thumbnail:.2f} dB"
    )
    if yours > thumbnail:
        return f"{found}."

    with torch.no_grad():
        on = next(model.parameters()).device
        decoded = model.decode(model.encode(x.to(on)).mode()).cpu()
    reject(
        psnr((decoded + 1) / 2, x).mean() <= thumbnail,
        "Your decoder's pixels are in [-1, 1]; the course's models take and give [0, 1].",
    )
    raise Rejected(f"Not yet better than a thumbnail: {found}. Train longer?")
