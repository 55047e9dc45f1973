"""Checks of notebook 7's exercises; `helpers.exercises.check` says how a check works."""

import functools
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from helpers.exercises.check import (
    close,
    exercise,
    expect_shape,
    in_place,
    reject,
    reject_mistakes,
    twins,
)
from helpers.models.blocks import EPS
from helpers.models.conv_vae import VAEConfig
from helpers.rng import generator_for

ODD = VAEConfig((8, 12, 16), 3, blocks=2, groups=2, heads=2)  # three levels, none like another
PATCHES = VAEConfig((8, 16), 5, blocks=1, groups=4, patch=2)


def _randomised(mine: nn.Module, theirs: nn.Module) -> None:
    """Give both the same random weights: fresh ones may be 0 or 1 and would hide mistakes."""
    generator = generator_for("weights")
    for weight in theirs.state_dict().values():
        spread = weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.5
        weight.copy_(spread * torch.randn(weight.shape, generator=generator) + (weight.dim() == 1))
    mine.load_state_dict(theirs.state_dict())


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator_for("noise", *shape))


# --- convolutions ---


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
    for stack in ([], [(3, 1)], [(3, 1), (3, 1)], [(1, 1), (3, 2)], layers):
        got, truth = answer(list(stack)), _pixels_seen(stack) if stack else 1
        reject(
            got == truth, f"A gradient through {stack} reaches {truth} pixels, and you say {got}."
        )
    return "Just as far as the gradients of real convolutions reach."


def _resamplers(answer: type, course: type) -> Iterator[tuple]:
    """(the learner's output, x, weight, bias) for several sizes."""
    for channels, height, width in ((6, 8, 14), (5, 10, 4)):
        mine, theirs = twins(answer, course, channels)
        _randomised(mine, theirs)
        x = _noise(2, channels, height, width)
        yield mine(x), x, theirs.conv.weight, theirs.conv.bias


@in_place("helpers.models.blocks:Downsample")
def downsample(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer(channels): pad (0, 1, 0, 1), then a 3×3 convolution of stride 2, named `conv`."""
    for got, x, weight, bias in _resamplers(answer, course):
        b, c, h, w = x.shape
        unpadded = isinstance(got, torch.Tensor) and got.shape[2:] == ((h - 1) // 2, (w - 1) // 2)
        reject(not unpadded, "Nothing was padded: one row and one column are missing at the end.")
        expect_shape(got, (b, c, h // 2, w // 2), "The output")

        by_two = functools.partial(F.conv2d, weight=weight, bias=bias, stride=2)
        right = by_two(F.pad(x, (0, 1, 0, 1)))
        reject_mistakes(
            got,
            (
                by_two(x, padding=1),
                "Your zeros are at the left and the top, where padding on all sides puts them too; "
                "published weights expect them at the right and the bottom.",
            ),
            (
                by_two(F.pad(x, (0, 1, 0, 1), mode="replicate")),
                "You repeated the border; published weights expect zeros there.",
            ),
        )
        reject(close(got, right), "It is not F.pad(x, (0, 1, 0, 1)), then `conv`.")
    return "It halves as Stable Diffusion's does."


@in_place("helpers.models.blocks:Upsample")
def upsample(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer(channels): repeat every pixel, then a 3×3 convolution, named `conv`."""
    for got, x, weight, bias in _resamplers(answer, course):
        b, c, h, w = x.shape
        expect_shape(got, (b, c, 2 * h, 2 * w), "The output")
        convolved = functools.partial(F.conv2d, weight=weight, bias=bias, padding=1)
        repeated = F.interpolate(x, scale_factor=2.0)
        smooth = F.interpolate(x, scale_factor=2.0, mode="bilinear")
        spread = torch.zeros(b, c, 2 * h, 2 * w)
        spread[..., ::2, ::2] = x
        reject_mistakes(
            got,
            (repeated, "The convolution is missing: after repeating, apply `conv`."),
            (
                F.interpolate(convolved(x), scale_factor=2.0),
                "You convolved first and repeated afterwards: that leaves blocks of four.",
            ),
            (
                convolved(smooth),
                'You interpolated; repeat the pixels: mode="nearest".',
            ),
            (
                convolved(spread),
                "You put zeros between the pixels, as a transposed convolution does.",
            ),
        )
        reject(
            close(got, convolved(repeated)),
            "It is not every pixel repeated in both directions, then `conv` with padding 1.",
        )
    return "No checkerboard."


# --- normalisation and shortcuts ---


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
    reject(
        not {"group_norm", "GroupNorm"} & set(answer.__code__.co_names),
        "The result is right, but it is PyTorch's: write it without its GroupNorm.",
    )
    return "Equal to PyTorch's GroupNorm, for a nearly flat image too."


@in_place("helpers.models.blocks:ResBlock")
def res_block(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer(inputs, outputs, groups): norm1, conv1, norm2, conv2, shortcut; conv2 begins at 0."""
    for inputs, outputs in ((6, 10), (8, 8)):
        fresh = answer(inputs, outputs, 2)
        mine, theirs = twins(answer, course, inputs, outputs, 2)
        begins_at_zero = not any(weight.any() for weight in fresh.conv2.parameters())
        reject(begins_at_zero, "A fresh `conv2` should be 0, weights and bias: nn.init.zeros_.")
        for norm in (mine.norm1, mine.norm2):
            is_norm = isinstance(norm, nn.GroupNorm) and norm.num_groups == 2
            reject(is_norm, "`norm1` and `norm2` should be group_norm(width, groups).")
            reject(norm.eps == EPS, f"GroupNorm's eps should be {EPS:g}: make it with group_norm.")
        _randomised(mine, theirs)
        _compare_blocks(mine, theirs, _noise(2, inputs, 5, 7))
    return "A fresh block is its shortcut, and a trained one adds to it."


def _compare_blocks(mine: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    """The learner's residual block against the course's, with the same weights."""
    got = mine(x)
    right = theirs(x)
    expect_shape(got, tuple(right.shape), "The output")

    def branch(before, between=F.silu, norm2=theirs.norm2) -> torch.Tensor:
        return theirs.conv2(between(norm2(theirs.conv1(before(theirs.norm1(x))))))

    def plain(h: torch.Tensor) -> torch.Tensor:
        return h

    around = theirs.shortcut(x)
    h = F.silu(theirs.norm2(theirs.conv1(theirs.norm1(F.silu(x)))))
    reject_mistakes(
        got,
        (right - around, "The shortcut is missing: add what `self.shortcut` makes of x."),
        (around + branch(F.relu, F.relu), "You bend with ReLU; published weights expect SiLU."),
        (around + branch(plain, plain), "Nothing bends: apply SiLU after each norm."),
        (around + branch(plain), "The first SiLU is missing, between norm1 and conv1."),
        (around + branch(F.silu, plain), "The second SiLU is missing, between norm2 and conv2."),
        (around + branch(F.silu, norm2=plain), "`norm2` is not used."),
        (around + theirs.conv2(h), "SiLU comes after the norm, and not before it."),
        (F.silu(right), "The sum stays as it is: no SiLU after the shortcut."),
    )
    reject(
        close(got, right),
        "It is not shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x)))))).",
    )


# --- attention ---


@in_place("helpers.models.blocks:attend")
def attend(answer: Callable, course: Callable) -> str:
    """answer(q, k, v), each (…, T, d) -> attention, (…, T, d)."""
    for shape in ((3, 5, 7), (2, 4, 6, 3)):  # without and with an axis of heads
        q, k, v = (torch.randn(shape, generator=generator_for("attend", name)) for name in "qkv")
        got = answer(q, k, v)
        expect_shape(got, shape, f"For q, k and v of {shape} the output")
        tokens, d = shape[-2:]
        scores = q @ k.transpose(-2, -1)
        scaled = scores / math.sqrt(d)
        reject_mistakes(
            got,
            (scores.softmax(-1) @ v, "You forgot to divide the scores by √d."),
            (
                (scores / math.sqrt(tokens)).softmax(-1) @ v,
                "You divided by √T, the number of tokens; divide by √d, the size of a query.",
            ),
            ((scores / d).softmax(-1) @ v, "You divided by d; divide by its root."),
            (
                scaled.softmax(-2) @ v,
                "Your softmax runs over the wrong axis: "
                "each row, the weights of one query, adds up to 1.",
            ),
            (
                scaled.transpose(-2, -1).softmax(-1) @ v,
                "You have keys ask and queries answer: the scores are q kᵀ.",
            ),
            (scaled @ v, "You mixed the values with the bare scores; softmax makes weights."),
        )
        truth = course(q, k, v)
        found, wanted = got.flatten()[0], truth.flatten()[0]
        reject(
            close(got, truth), f"PyTorch's first value is {wanted:.4f}, and yours is {found:.4f}."
        )
        reject(
            close(answer(500 * q, k, v), course(500 * q, k, v), 1e-3),
            "Right for small scores, wrong for large ones: "
            "exp overflows where torch.softmax does not.",
        )
    return "Equal to PyTorch's own, for large scores too."


@in_place("helpers.models.blocks:SelfAttention")
def self_attention(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer(channels, heads): q, k, v, out, and the methods split, weights and forward."""
    for channels, heads in ((12, 3), (8, 1), (8, 4)):
        mine, theirs = twins(answer, course, channels, heads)
        _randomised(mine, theirs)
        tokens = _noise(2, 5, channels)
        got, right = mine(tokens), theirs(tokens)
        expect_shape(got, tuple(right.shape), "The output")
        q, k, v = (theirs.split(part(tokens)) for part in (theirs.q, theirs.k, theirs.v))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, T, C/heads)
        joined = mixed.transpose(1, 2).flatten(2)
        whole = (part(tokens) for part in (theirs.q, theirs.k, theirs.v))
        as_one = F.scaled_dot_product_attention(*whole)
        by_all = F.scaled_dot_product_attention(q, k, v, scale=channels**-0.5)
        mistakes = [
            (joined, "`self.out` is missing: it mixes the heads at the end."),
            (tokens + right, "Return what attention gives; the residual is AttentionBlock's."),
            (
                theirs.out(F.scaled_dot_product_attention(k, q, v).transpose(1, 2).flatten(2)),
                "Queries and keys have changed places: attend(q, k, v).",
            ),
        ]
        if heads > 1:
            mistakes += [
                (theirs.out(as_one), "There is one head: split q, k and v before they attend."),
                (
                    theirs.out(mixed.reshape(2, 5, channels)),
                    "The heads are put together in the wrong order: transpose(1, 2) first, so that "
                    "each token has its heads beside one another.",
                ),
                (
                    theirs.out(by_all.transpose(1, 2).flatten(2)),
                    "Each head divides by √(C / heads), the size of its own queries.",
                ),
            ]
        reject_mistakes(got, *mistakes)
        reject(close(got, right), "It is not `out` of all heads' attend(q, k, v), side by side.")
    return "Several heads, and PyTorch's own layer gives the same."


# --- the network ---


@in_place("helpers.models.conv_vae:Encoder")
def encoder(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer(config): conv_in, stages, mid, norm_out, conv_out."""
    for config in (ODD, PATCHES):
        mine, theirs = twins(answer, course, config)
        _randomised(mine, theirs)
        side = 2 * config.factor
        x = _noise(2, 3, side, side + config.factor)
        got, right = mine(x), theirs(x)
        shape = (2, 2 * config.latent_channels, *right.shape[2:])
        expect_shape(got, shape, f"For {tuple(x.shape)} the output")
        h = theirs.conv_in(x)
        for stage in theirs.stages:
            h = stage(h)
        reject_mistakes(
            got,
            (theirs.conv_out(F.silu(theirs.norm_out(h))), "`mid` is not used."),
            (theirs.conv_out(theirs.mid(h)), "`norm_out` and SiLU come before `conv_out`."),
            (theirs.conv_out(theirs.norm_out(theirs.mid(h))), "SiLU after `norm_out` is missing."),
            (theirs.conv_out(F.silu(theirs.mid(h))), "`norm_out` is not used."),
        )
        reject(
            close(got, right),
            "It is not conv_in → stages → mid → norm_out → SiLU → conv_out.",
        )
    return "The shapes and values of Stable Diffusion's encoder."


@in_place("helpers.models.conv_vae:Decoder")
def decoder(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer(config): conv_in, mid, stages, norm_out, conv_out."""
    for config in (ODD, PATCHES):
        mine, theirs = twins(answer, course, config)
        _randomised(mine, theirs)
        z = _noise(2, config.latent_channels, 2, 3)
        got, right = mine(z), theirs(z)
        expect_shape(got, tuple(right.shape), f"For {tuple(z.shape)} the output")
        h = theirs.mid(theirs.conv_in(z))
        without_mid = theirs.conv_in(z)
        for stage in theirs.stages:
            h, without_mid = stage(h), stage(without_mid)
        reject_mistakes(
            got,
            (theirs.conv_out(F.silu(theirs.norm_out(without_mid))), "`mid` is not used."),
            (theirs.conv_out(h), "`norm_out` and SiLU come before `conv_out`."),
            (theirs.conv_out(theirs.norm_out(h)), "SiLU after `norm_out` is missing."),
            (theirs.conv_out(F.silu(h)), "`norm_out` is not used."),
            (right.tanh(), "Leave the pixels as they are: no tanh at the end."),
            (right.sigmoid(), "Leave the pixels as they are: no sigmoid at the end."),
        )
        reject(
            close(got, right),
            "It is not conv_in → mid → stages → norm_out → SiLU → conv_out.",
        )
    return "The encoder's mirror, one block more at each level."
