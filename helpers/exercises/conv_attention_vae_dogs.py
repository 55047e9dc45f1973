"""Checks of notebook 8's exercises; `helpers.exercises.check` says how a check works."""

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from helpers import CourseError
from helpers.data.datasets import load_dogs
from helpers.data.image_set import ImageSet
from helpers.env import budget
from helpers.exercises.check import (
    Rejected,
    close,
    exercise,
    expect_shape,
    in_place,
    reject,
    reject_mistakes,
    twins,
)
from helpers.metrics.images import BlockPCA, psnr, reconstruct
from helpers.metrics.latents import latent_statistics
from helpers.models.blocks import ResBlock
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.models.distributions import DiagonalGaussian
from helpers.models.losses import gaussian_nll
from helpers.rng import generator_for


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator_for("noise", *shape))


@in_place("helpers.models.blocks:LinearShortcut")
def linear_shortcut(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer(factor, latent_channels): encode, decode and start_as(mean, axes, variances)."""
    for factor, channels in ((2, 5), (4, 3)):
        twins(answer, course, factor, channels)
        mine, theirs = answer(factor, channels), course(factor, channels)
        values = 3 * factor**2
        axes = torch.linalg.qr(_noise(values, channels))[0]  # orthonormal columns
        variances = torch.rand(channels, generator=generator_for("variances")) + 0.2
        mean = _noise(values)
        mine.start_as(mean, axes, variances)
        theirs.start_as(mean, axes, variances)
        x = _noise(3, 3, 3 * factor, 4 * factor)
        z = _noise(3, channels, 3, 4)
        with torch.no_grad():
            code, right = mine.encode(x), theirs.encode(x)
            back, picture = mine.decode(z), theirs.decode(z)
        expect_shape(code, tuple(right.shape), "The code")
        sd = variances.sqrt().view(1, -1, 1, 1)
        shift = ((mean @ axes) / variances.sqrt()).view(1, -1, 1, 1)
        plain_shift = shift * sd
        reject_mistakes(
            code,
            (right + shift, "The mean stays in the code: the encoder's bias takes it away."),
            (right + 2 * shift, "The bias has the wrong sign: the code is of block − mean."),
            (right * sd, "The codes have the axes' variances; divide by the standard deviation."),
            (
                right * sd + plain_shift - shift,
                "The bias is divided by the standard deviation, and the weights are not.",
            ),
            (right + shift - plain_shift, "Divide the bias by the standard deviation, too."),
            (right / sd, "You divided by the variance; divide by its root."),
        )
        reject(close(code, right), "The code of a block should be (block − mean) · axes / sd.")
        bias = theirs.decode.bias.view(1, 3, 1, 1)
        reject_mistakes(
            back,
            (picture - bias, "The way back lacks the mean: the decoder has a bias per colour."),
            (
                theirs.decode(z / sd),
                "On the way back nothing is multiplied by the standard deviation.",
            ),
            (theirs.decode(z / sd**2), "On the way back multiply by the standard deviation."),
        )
        reject(close(back, picture), "The way back should be code · sd · axesᵀ, and the mean.")
    return "It is block PCA, and every channel has variance 1."


@in_place("helpers.models.conv_vae:ConvVAE")
def conv_vae(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer(config): the parts, start_as, encode, decode, forward, set_gradient_checkpointing."""
    plain = VAEConfig((8, 16), 3, blocks=1, groups=4)
    for config in (plain, replace(plain, patch=2, quant_conv=False, linear_shortcut=True)):
        mine, theirs = twins(answer, course, config)
        generator = generator_for("weights")
        for weight in theirs.state_dict().values():
            spread = weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.3
            weight.copy_(spread * torch.randn(weight.shape, generator=generator))
        mine.load_state_dict(theirs.state_dict())
        x = torch.rand(2, 3, 2 * config.factor, 3 * config.factor, generator=generator)
        with torch.no_grad():
            _compare_encoders(mine, theirs, x)
            _compare_decoders(mine, theirs, theirs.encode(x).mean)
            made, right = (model(x, generator_for("draw")) for model in (mine, theirs))
        reject(close(made.decoded, right.decoded), "`forward` decodes a draw of the posterior.")
        one_too_many = torch.rand(1, 3, 2 * config.factor + 1, 2 * config.factor)
        try:
            mine.encode(one_too_many)
        except CourseError:
            continue
        reject(False, "`encode` should begin with check_size(x, self.config.factor).")
    return "With a shortcut and without; checkpoints of the course load into it."


def _compare_encoders(mine: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    posterior, right = mine.encode(x), theirs.encode(x)
    is_posterior = isinstance(posterior, DiagonalGaussian)
    reject(is_posterior, "`encode` should return DiagonalGaussian(mean, logvar).")
    expect_shape(posterior.mean, tuple(right.mean.shape), "The posterior's mean")
    moments = theirs.to_moments(theirs.encoder(x)).chunk(2, dim=1)[0]
    deep = theirs.to_moments(theirs.encoder(2 * x - 1)).chunk(2, dim=1)[0]
    bare = theirs.encoder(2 * x - 1).chunk(2, dim=1)[0]
    around = theirs.linear.encode(2 * x - 1) if theirs.linear else 0.0
    mistakes = [
        (moments + around, "The encoder sees pixels in [-1, 1]: 2 * x - 1."),
        (right.logvar, "Mean and log-variance have changed places: the mean comes first."),
    ]
    if theirs.config.quant_conv:
        mistakes += [(bare + around, "`to_moments` is missing after the encoder.")]
    if theirs.linear:
        mistakes += [
            (deep, "The shortcut is missing: add self.linear.encode(pixels) to the mean."),
            (deep + theirs.linear.encode(x), "The shortcut sees pixels in [-1, 1], too."),
        ]
    reject_mistakes(posterior.mean, *mistakes)
    reject(close(posterior.mean, right.mean), "The posterior's mean is another one.")
    reject(close(posterior.logvar, right.logvar), "Its log-variance should stay the encoder's.")


def _compare_decoders(mine: nn.Module, theirs: nn.Module, z: torch.Tensor) -> None:
    got, right = mine.decode(z), theirs.decode(z)
    expect_shape(got, tuple(right.shape), "What `decode` returns")
    deep = theirs.decoder(theirs.from_latent(z))
    around = theirs.linear.decode(z) if theirs.linear else 0.0
    mistakes = [
        (2 * right - 1, "The pixels are in [-1, 1]: add 1 and halve."),
        (right.clamp(0, 1), "Do not clamp: a loss needs to see what is too much."),
    ]
    if theirs.config.quant_conv:
        mistakes += [((theirs.decoder(z) + 1) / 2, "`from_latent` is missing before the decoder.")]
    if theirs.linear:
        mistakes += [
            ((deep + 1) / 2, "The shortcut is missing: add self.linear.decode(z)."),
            ((deep + 1) / 2 + around, "Add the shortcut before you go from [-1, 1] to [0, 1]."),
        ]
    reject_mistakes(got, *mistakes)
    reject(close(got, right), "It is not decoder(from_latent(z)), from [-1, 1] to [0, 1].")


@in_place("helpers.models.discriminator:hinge_loss")
def hinge_loss(answer: Callable, course: Callable) -> str:
    """answer(real, fake), each (B, 1, h, w) -> (B,)."""
    for shape in ((3, 1, 4, 5), (2, 1, 2, 3)):
        real, fake = 2 * _noise(*shape), 1.5 * _noise(*shape[::-1]).reshape(shape)
        got, right = answer(real, fake), course(real, fake)
        if isinstance(got, torch.Tensor) and got.dim() == 0:
            reject(False, "One number per image, please: average over its patches only.")
        expect_shape(got, (shape[0],), "The loss")
        lacks, exceeds = F.relu(1 - real).flatten(1), F.relu(1 + fake).flatten(1)
        reject_mistakes(
            got,
            (2 * right, "Half of it: the two terms are averaged."),
            (course(fake, real), "Real and fake have changed places."),
            (0.5 * (lacks.sum(1) + exceeds.sum(1)), "Average over the patches; you added them."),
            (
                0.5 * ((1 - real).flatten(1).mean(1) + (1 + fake).flatten(1).mean(1)),
                "A score beyond 1 or −1 earns nothing more: F.relu.",
            ),
            (
                0.5 * (F.relu(-real).flatten(1).mean(1) + F.relu(fake).flatten(1).mean(1)),
                "The margin of 1 is missing.",
            ),
        )
        reject(close(got, right), f"The first is {right[0]:.4f}, and yours is {got[0]:.4f}.")
    return "Nothing is asked for beyond the margin."


@in_place("helpers.models.losses:equivariance_error")
def equivariance_error(answer: Callable, course: Callable) -> str:
    """answer(model, z, x) -> (B,)."""
    model = ConvVAE(VAEConfig((8, 16), 3, blocks=1, groups=4)).eval()
    for height, width in ((4, 6), (8, 4)):
        z = _noise(3, 3, height, width)
        x = torch.rand(3, 3, 2 * height, 2 * width, generator=generator_for("photographs"))
        with torch.no_grad():
            got, right = answer(model, z, x), course(model, z, x)
            if isinstance(got, torch.Tensor) and got.dim() == 0:
                reject(False, "One number per image, please: average over its pixels only.")
            expect_shape(got, (3,), "The error")
            shrink = functools.partial(F.interpolate, scale_factor=0.5, mode="area")
            decoded, wanted = model.decode(shrink(z)), shrink(x)
            large = shrink(model.decode(z))
            nearest = F.interpolate(z, scale_factor=0.5), F.interpolate(x, scale_factor=0.5)
            reject_mistakes(
                got,
                (
                    (large - wanted).square().flatten(1).mean(1),
                    "You shrank the decoded picture; shrink the latent, and decode that.",
                ),
                (
                    (model.decode(nearest[0]) - nearest[1]).square().flatten(1).mean(1),
                    'You dropped three values of four; mode="area" averages them.',
                ),
                ((decoded - wanted).abs().flatten(1).mean(1), "Squared errors, please."),
                (
                    (decoded - wanted).square().flatten(1).sum(1),
                    "Average over the pixels; you added them.",
                ),
            )
            reject(close(got, right), f"The first is {right[0]:.4f}, and yours is {got[0]:.4f}.")
        z.requires_grad_()
        answer(model, z, x).sum().backward()
        reject(z.grad is not None, "No gradient reaches the latent: leave out no_grad and detach.")
    return "A small latent should be a small dog."


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

    fresh = answer(8, 8, groups=4, start=0.0)
    fresh(_noise(2, 8, 5, 7)).pow(3).sum().backward()
    learns = any(w.grad is not None and w.grad.any() for w in fresh.parameters())
    reject(
        learns,
        "With a factor of 0 and conv2 at 0 every gradient is 0, for ever: "
        "draw conv2 anew, self.conv2.reset_parameters().",
    )
    return "a ResBlock at 1, its shortcut at 0, and it learns from there."


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
    """answer(train) -> a trained VAE that beats block PCA on held-out dogs."""
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
    return _compare_with_linear_code(model, train, validation)


def _compare_with_linear_code(model: nn.Module, train: ImageSet, validation: ImageSet) -> str:
    """The praise, or what is said of a model that is no better than block PCA."""
    x = validation.pixels()
    linear = psnr(BlockPCA(train, 4, 4).reconstruct(x), x).mean()
    yours = psnr(reconstruct(model, validation), x).mean()
    found = f"held-out {yours:.2f} dB; block PCA, four numbers for 4×4 pixels: {linear:.2f} dB"
    if yours > linear + 0.1:
        return f"{found}."

    with torch.no_grad():
        on = next(model.parameters()).device
        decoded = model.decode(model.encode(x.to(on)).mode()).cpu()
    reject(
        psnr((decoded + 1) / 2, x).mean() <= linear,
        "Your decoder's pixels are in [-1, 1]; the course's models take and give [0, 1].",
    )
    raise Rejected(f"Not yet better than a linear code: {found}. Begin with it, or train longer?")
