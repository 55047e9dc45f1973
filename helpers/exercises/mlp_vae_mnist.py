"""Checks of notebook 2's exercises; `helpers.exercises.check` says how a check works."""

import copy
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from helpers.data.datasets import load_mnist
from helpers.data.loader import Batches
from helpers.env import budget
from helpers.exercises.check import (
    close,
    exercise,
    expect_shape,
    in_place,
    reject,
    reject_mistakes,
    twins,
)
from helpers.exercises.noise import expect_generator, expect_normal
from helpers.metrics.latents import active_units, encode_all
from helpers.models.distributions import DiagonalGaussian, VAEOutput
from helpers.models.losses import bernoulli_nll, gaussian_nll
from helpers.models.losses import negative_elbo as course_elbo
from helpers.rng import generator_for

# --- the draw and the KL ---


@in_place("helpers.models.distributions:reparameterise")
def reparameterise(answer: Callable, course: Callable) -> str:
    """answer(mean, logvar, generator) -> one differentiable draw in each entry."""
    for shape in ((20_000, 3), (6_000, 2, 3)):
        generator = generator_for("moments", *shape)
        mean = (2 * torch.randn(shape, generator=generator) + 1).requires_grad_()
        logvar = torch.randn(shape, generator=generator).requires_grad_()
        z = answer(mean, logvar, generator_for("draw"))
        expect_shape(z, shape, "The sample")
        blocked = (
            "No gradient flows through your sample; write it as mean + std · noise, "
            "with the randomness in `noise` alone."
        )
        reject(z.requires_grad, blocked)
        _expect_spread(z, mean, logvar)
        gradients = torch.autograd.grad(z.sum(), (mean, logvar), allow_unused=True)
        moved = gradients[0] is not None and gradients[0].abs().max().item() > 0
        reject(moved, blocked)  # torch.normal's gradient is 0
        half = 0.5 * (z - mean).detach()
        reject(
            gradients[1] is not None and close(gradients[1], half, 1e-3),
            "The gradient does not reach the log-variance: no `detach`, no `torch.no_grad`.",
        )
    expect_generator(lambda generator: answer(mean.detach(), logvar.detach(), generator))
    return "Mean, spread, gradients and generator are right."


def _expect_spread(z: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor) -> None:
    """Reject draws z that have not the given mean and log-variance in each entry."""
    with torch.no_grad():
        off = z - mean
        shrunk = (z * (-logvar / 2).exp()).std()  # 1 where the mean is missing
        reject(
            (shrunk - 1).abs() > 0.05,
            "The mean is missing: that is noise around 0.",
        )
        reject(off.abs().max() > 1e-6, "There is no noise in your draw: it is the mean itself.")
        for log_std, sentence in (
            (logvar, "The spread is the variance, and not its root: std = exp(logvar / 2)."),
            (torch.zeros_like(logvar), "The noise is not scaled: multiply it by the spread."),
            (-logvar / 2, "The spread is upside down: exp(logvar / 2), without a minus."),
        ):
            reject(abs((off / log_std.exp()).std().item() - 1) > 0.02, sentence)
        axes = ("images", "dimensions") if z.ndim == 2 else ("images", "channels", "dimensions")
        expect_normal(
            off / (0.5 * logvar).exp(),
            axes,
            "Draws should lie around `mean`, and yours are {} spreads off on average.",
            "The spread should be exp(logvar / 2), and yours is {} times that.",
        )


@in_place("helpers.models.distributions:gaussian_kl")
def gaussian_kl(answer: Callable, course: Callable) -> str:
    """answer(mean, logvar) -> KL to N(0, I) in nats per image, (B,)."""
    for b, latent in ((7, 5), (4, 2)):
        mean, logvar = (torch.randn(b, latent, generator=generator_for(k, b)) for k in "mv")
        prior = Normal(0.0, 1.0)
        std = (0.5 * logvar.double()).exp()
        parts = kl_divergence(Normal(mean.double(), std), prior)  # (B, latent)
        variance_as_std = kl_divergence(Normal(mean, logvar.exp()), prior)
        backwards = kl_divergence(prior, Normal(mean.double(), std))

        got = answer(mean, logvar)
        reject(got is not None, "Your function returns nothing: end it with `return`.")
        reject(
            getattr(got, "ndim", 1) > 0 and not isinstance(got, float),
            "That is one number for the whole batch, and its weight would depend on the batch; "
            "return one per image, (B,).",
        )
        reject(
            tuple(getattr(got, "shape", ())) != (b, latent),
            "That is the KL of each latent dimension; sum over them, independent KLs add up.",
        )
        reject(
            tuple(getattr(got, "shape", ())) != (latent,),
            "You summed over the images; sum over the latent dimensions: sum(1).",
        )
        expect_shape(got, (b,), "The KL")
        reject_mistakes(
            got,
            (
                parts.mean(1),
                "You averaged over the latent dimensions; "
                "KLs of independent dimensions add up, so sum.",
            ),
            (-parts.sum(1), "The sign is upside down: a KL is never negative."),
            (2 * parts.sum(1), "That is twice the KL: ½ stands before the bracket."),
            (
                variance_as_std.sum(1),
                "You took exp(logvar) for the standard deviation; it is the variance.",
            ),
            (backwards.sum(1), "That is KL(N(0, I) ‖ q), and a KL is not symmetric."),
        )
        reject(
            close(got, parts.sum(1)),
            f"torch.distributions says {parts[0].sum():.4f} for the first image, and you say "
            f"{got[0]:.4f}: ½ Σ (μ² + σ² − 1 − log σ²).",
        )
    return "Equal to torch.distributions."


# --- the network ---


@in_place("helpers.models.mlp_vae:MLPVAE")
def mlp_vae(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer: the class, made of `latent` and `hidden`, with encode, decode and forward."""
    x = torch.rand(7, 1, 28, 28, generator=generator_for("vae"))
    for arguments in ({}, {"latent": 3, "hidden": (40, 24)}, {"latent": 5, "hidden": (16,)}):
        mine, theirs = twins(answer, course, **arguments)
        q = mine.encode(x)
        right = theirs.encode(x)
        is_pair = isinstance(q, tuple | list)
        reject(not is_pair, "`encode` should return a DiagonalGaussian(mean, logvar), not a pair.")
        named = hasattr(q, "mean") and hasattr(q, "logvar") and not isinstance(q, torch.Tensor)
        reject(named, "`encode` should return a DiagonalGaussian(mean, logvar).")
        expect_shape(q.mean, tuple(right.mean.shape), "The mean that `encode` gives")
        for wrong, sentence in (
            (right.logvar, "You swapped them: the first half is the mean."),
            (right.mean.relu(), "A mean may be negative: no ReLU after the encoder."),
        ):
            reject(not close(q.mean, wrong), sentence)
        reject(
            close(q.mean, right.mean),
            "The mean should be the first half of what `self.encoder` makes of x.flatten(1).",
        )
        expect_shape(q.logvar, tuple(right.logvar.shape), "The log-variance that `encode` gives")
        reject(
            not close(q.logvar, right.mean),
            "Mean and log-variance are the same half: chunk(2, dim=1) gives two.",
        )
        reject(
            close(q.logvar, right.logvar),
            "The log-variance should be the second half, unchanged: DiagonalGaussian takes its "
            "exponential.",
        )
        z = 3 * torch.randn(right.mean.shape, generator=generator_for("z", *right.mean.shape))
        decoded = mine.decode(z)
        expect_shape(decoded, (7, 1, 28, 28), "What `decode` returns")
        reject_mistakes(
            decoded,
            (
                theirs.decode(z).sigmoid(),
                "`decode` returns logits: the sigmoid is taken by whoever looks.",
            ),
        )
        reject(
            close(decoded, theirs.decode(z)),
            "`decode` should return what `self.decoder` makes of z.",
        )
        _compare_forward(mine, x)
    return "Two heads, a draw, and the weights of the course's checkpoints fit."


def _compare_forward(mine: nn.Module, x: torch.Tensor) -> None:
    """What the learner's forward returns: the posterior, a draw of it, and that draw decoded."""
    torch.manual_seed(0)
    out = mine(x, generator_for("forward"))
    reject(out is not None, "`forward` returns nothing: end it with `return`.")
    named = all(hasattr(out, name) for name in ("decoded", "posterior", "z"))
    reject(named, "`forward` should return VAEOutput(decoded, posterior, z).")
    q = mine.encode(x)
    in_order = isinstance(out.z, torch.Tensor) and hasattr(out.posterior, "mean")
    reject(
        in_order and out.z.shape == q.mean.shape,
        "The three are in another order: VAEOutput(decoded, posterior, z).",
    )
    reject(
        not close(out.z, q.mean),
        "z is the mean of the posterior: take a draw, posterior.sample(generator).",
    )
    reject(
        not close(out.decoded, mine.decode(q.mean)),
        "You decode the mean, and not the draw z.",
    )
    again, other = (mine(x, generator_for(key)).z for key in ("forward", "other"))
    reject(
        close(out.z, again) and not close(out.z, other),
        "The draw does not depend on `generator`: hand it to `sample`.",
    )
    reject(close(out.decoded, mine.decode(out.z)), "`decoded` should be what `decode` makes of z.")


# --- the loss ---


@in_place("helpers.models.losses:negative_elbo")
def negative_elbo(answer: Callable, course: Callable) -> str:
    """answer(output, x, nll, beta) -> {"loss", "reconstruction", "kl"}, each (B,)."""
    for shape, latent, nll, beta in (
        ((5, 1, 9, 6), 3, bernoulli_nll, 1.0),
        ((4, 2, 5, 8), 7, gaussian_nll, 0.3),
    ):
        generator = generator_for("elbo", latent)
        decoded = torch.randn(shape, generator=generator)
        moments = torch.randn(2, shape[0], latent, generator=generator)
        x = torch.rand(shape, generator=generator)
        output = VAEOutput(decoded, DiagonalGaussian(*moments), moments[0])
        got = answer(output, x) if beta == 1.0 else answer(output, x, nll=nll, beta=beta)
        right = course(output, x, nll=nll, beta=beta)
        _compare_terms(got, right, nll(decoded.sigmoid(), x), x[0].numel(), beta)
    return "One number per image, in nats, with any likelihood and any β."


def _compare_terms(
    got, right: dict[str, torch.Tensor], squashed: torch.Tensor, pixels: int, beta: float
) -> None:
    """The learner's terms against the course's; squashed: the nll with a sigmoid too many."""
    reject(got is not None, "Your function returns nothing: end it with `return`.")
    reject(
        isinstance(got, dict),
        'Return a dict: {"loss": …, "reconstruction": …, "kl": …}.',
    )
    missing = [name for name in ("loss", "reconstruction", "kl") if name not in got]
    reject(not missing, f"Your dict has no {missing[:1]}: it should have loss, reconstruction, kl.")
    reconstruction, kl = right["reconstruction"], right["kl"]
    for name in ("reconstruction", "kl", "loss"):
        value = got[name]
        alone = getattr(value, "ndim", 1) == 0 or isinstance(value, float)
        reject(not alone, f"`{name}` is one number for the whole batch; give one per image, (B,).")
        expect_shape(value, tuple(kl.shape), f"`{name}`")
    reject_mistakes(
        got["reconstruction"],
        (reconstruction / pixels, "You averaged over the pixels; the nll sums them, in nats."),
        (squashed, "`nll` takes what the decoder gives, logits: no sigmoid before it."),
    )
    reject(
        close(got["reconstruction"], reconstruction),
        "`reconstruction` should be nll(output.decoded, x), with the `nll` that was handed over.",
    )
    if beta != 1:
        scaled = "`kl` should be the KL itself; β belongs into `loss` alone."
        reject(not close(got["kl"], beta * kl), scaled)
    reject(close(got["kl"], kl), "`kl` should be output.posterior.kl().")
    mistakes = [
        (reconstruction - beta * kl, "The KL is a price: it is added to the reconstruction."),
        (-(reconstruction + beta * kl), "That is the ELBO; we minimise its negative."),
        (reconstruction, "`loss` is the reconstruction alone; the KL is missing."),
    ]
    if beta != 1:
        mistakes += [
            (reconstruction + kl, "`beta` is not used."),
            (beta * (reconstruction + kl), "β multiplies the KL alone."),
        ]
    reject_mistakes(got["loss"], *mistakes)
    reject(
        close(got["loss"], reconstruction + beta * kl),
        "`loss` should be reconstruction + beta · kl.",
    )


@exercise
def first_nats(answer: Callable) -> str:
    """answer(pixels) -> the cross-entropy of an image whose pixels are all answered with ½."""
    for pixels in (784, 300):
        truth = pixels * math.log(2)
        got = answer(pixels)
        reject_mistakes(
            got,
            (pixels, "Those are bits; nats take the natural logarithm."),
            (-truth, "The sign is upside down: −log ½ is positive."),
            (math.log(2), "That is one pixel; the loss sums over all of them."),
            (pixels / 2, "½ is the probability; its price is −log ½."),
            (pixels / 4, "That is the squared error; the loss is now the cross-entropy."),
        )
        right = abs(float(got) - truth) < 1e-2
        reject(
            right or pixels == 784 or abs(float(got) - 784 * math.log(2)) > 1e-2,
            "Right for 784 pixels alone: use `pixels`.",
        )
        reject(right, f"{pixels} fair coins cost {truth:.3f} nats, and you say {float(got):.3f}.")
    return "784 fair coins cost 543.4 nats."


# --- the loop ---


class _Noisy(nn.Module):
    """A network small enough for a check, whose loss needs noise from the generator."""

    def __init__(self, inputs: int):
        super().__init__()
        self.layer = nn.Linear(inputs, 2)


def _noisy_loss(model, batch, generator) -> dict[str, torch.Tensor]:
    x = batch["images"].flatten(1)
    noise = torch.randn(len(x), 2, generator=generator)
    return {"loss": (model.layer(x) + noise - 20 * x[:, :2]).square().sum(1)}


def _epoch_by(step: Callable, model: nn.Module, batches: Batches, epoch: int) -> tuple:
    """(what `step` returns, the weights, the learning rate) after one epoch by a train_epoch."""
    net = copy.deepcopy(model)
    for mine, theirs in zip(net.parameters(), model.parameters(), strict=True):
        mine.grad = theirs.grad.clone()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=len(batches))
    value = step(net, _noisy_loss, batches, epoch, optimizer, schedule)
    weights = torch.cat([p.detach().flatten() for p in net.parameters()])
    return value, weights, optimizer.param_groups[0]["lr"]


def _variant(zero: bool = True, clip: bool = True, own_noise: bool = True) -> Callable:
    """A train_epoch with one thing left out."""

    def epoch_of(model, loss, batches, epoch, optimizer, schedule) -> None:
        for step, batch in enumerate(batches.epoch(epoch)):
            if zero:
                optimizer.zero_grad()
            key = ("noise", batches.seed, epoch, step if own_noise else 0)
            loss(model, batch, generator_for(*key))["loss"].mean().backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    return epoch_of


@in_place("helpers.training.by_hand:train_epoch")
def train_epoch(answer: Callable, course: Callable) -> str:
    """answer(model, loss, batches, epoch, optimizer, schedule) -> the mean loss of an epoch."""
    for count, inputs, epoch in ((24, 6, 1), (20, 4, 3)):
        torch.manual_seed(inputs)
        batches = Batches({"images": torch.rand(count, 1, 1, inputs)}, 4, seed=5)
        model = _Noisy(inputs)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        value, got, rate = _epoch_by(answer, model, batches, epoch)
        wanted, right, right_rate = _epoch_by(course, model, batches, epoch)
        reject(not torch.equal(got, before), "No weight has changed: backward, then step.")
        reject(
            abs(rate - right_rate) < 1e-9,
            f"After {len(batches)} steps the learning rate should be {right_rate:.5f}, and is "
            f"{rate:.5f}: call schedule.step() once in every step.",
        )
        reject_mistakes(
            got,
            *(
                (_epoch_by(_variant(**change), model, batches, epoch)[1], sentence)
                for change, sentence in (
                    ({"zero": False}, "The last step's gradient is not forgotten: zero_grad."),
                    (
                        {"clip": False},
                        "The gradient is not clipped to a norm of 1: clip after backward() and "
                        "before step().",
                    ),
                    ({"own_noise": False}, "Every step has the same noise: use its own generator."),
                )
            ),
        )
        reject(
            close(got, right),
            "The weights are not those after zero_grad, backward, clip, step in each batch: "
            "does the loss get the step's own generator?",
        )
        _compare_epoch(value, wanted, batches)
    return "As `fit` does it."


def _compare_epoch(value, wanted: float, batches: Batches) -> None:
    """The number that the learner's epoch returns against the course's."""
    reject(value is not None, "Your function returns nothing: return total / len(batches).")
    kind = "as a plain number: add value.item() to `total`"
    reject(not isinstance(value, torch.Tensor), f"Return the loss {kind}.")
    reject_mistakes(
        value,
        (wanted * len(batches), "You return the sum of the losses; return their mean."),
        (
            wanted * batches.batch_size,
            "You summed over each batch; the loss of a step is the mean over its images.",
        ),
        (0.0, "`total` is still 0: add every step's loss to it."),
    )
    right = abs(value - wanted) < 1e-3 * abs(wanted)
    reject(right, f"The mean loss of the epoch was {wanted:.4f}, and you return {value:.4f}.")


# --- walks ---


@in_place("helpers.metrics.latents:slerp")
def slerp(answer: Callable, course: Callable) -> str:
    """answer(a, b, t) -> the point at share t of the great circle from a to b; a, b: (latent,)."""
    for a, b in (
        ([0.2, -1.5], [1.0, 0.3]),
        ([3.0, 1.0, -0.5], [0.4, 2.0, 1.0]),
        ([1.0, 2.0, 0.0, -1.0, 0.5], [-0.5, 1.0, 2.0, 0.3, -1.0]),
    ):
        a, b = torch.tensor(a), torch.tensor(b)
        for t in (0.2, 1 / 3, 0.5):
            _compare_walk(answer(a.clone(), b.clone(), t), a, b, t)
        ends = close(answer(a, b, 0.0), a) and close(answer(a, b, 1.0), b)
        reject(ends, "t = 0 should give a, and t = 1 should give b.")
    return "Equal angles, for codes of any length and at any angle."


def _compare_walk(got, a: torch.Tensor, b: torch.Tensor, t: float) -> None:
    """The point at share t against what the formula gives, in float64, and against mistakes."""
    expect_shape(got, tuple(a.shape), "The point")
    reject(
        bool(torch.isfinite(got).all()),
        "Your point is not a number: acos got more than 1, so divide a · b by both lengths.",
    )
    a, b = a.double(), b.double()
    line = (1 - t) * a + t * b
    cosine = torch.dot(a, b) / (a.norm() * b.norm())

    def formula(w, divide: bool = True) -> torch.Tensor:
        point = torch.sin((1 - t) * w) * a + torch.sin(t * w) * b
        return point / torch.sin(w) if divide else point

    w = torch.acos(cosine)
    right_angle = torch.tensor(math.pi / 2)
    mistakes = [
        (line, "That is the straight line, which cuts through the inside of the sphere."),
        (formula(w, divide=False), "Divide by sin ω."),
        (formula(right_angle), "You took ω for a right angle; compute it from a and b."),
        (formula(cosine), "That is the cosine; ω is its arc cosine, torch.acos."),
        (
            formula(torch.acos(torch.dot(a, b).clamp(-0.999, 0.999))),
            "The cosine is a · b divided by both lengths; yours has no lengths.",
        ),
    ]
    if t != 0.5:
        swapped = (torch.sin(t * w) * a + torch.sin((1 - t) * w) * b) / torch.sin(w)
        stretched = line / line.norm() * ((1 - t) * a.norm() + t * b.norm())
        mistakes += [
            (swapped, "a and b have changed places: t = 0 should give a."),
            (stretched, "You stretched the straight line; its points are not at equal angles."),
        ]
    reject_mistakes(got, *mistakes)
    truth = formula(w)
    reject(
        close(got, truth),
        f"For t = {t:.3f} the first coordinate should be {truth[0]:.4f}, and yours is "
        f"{float(got[0]):.4f}.",
    )


# --- your own ---


@exercise
def my_vae(answer: Callable) -> str:
    """answer(train) -> a trained VAE whose code says something, better than the mean image."""
    from helpers.training.loop import evaluate

    train, validation = load_mnist("train").split(budget(quick=200, cpu=5000, gpu=5000))
    model = answer(train)
    reject(model is not None, "Your function returns nothing: end it with `return model`.")
    reject(isinstance(model, nn.Module), "Return the trained model, which is an nn.Module.")
    units = active_units(encode_all(model, validation))
    reject(
        units > 0,
        "No latent dimension depends on the image: the posterior collapsed; "
        "sum both terms over their dimensions.",
    )

    def loss(model, batch, generator):
        return course_elbo(model(batch["images"], generator), batch["images"])

    scores = evaluate(model, loss, validation)
    mean = train.pixels().mean(0, keepdim=True).clamp(1e-4, 1 - 1e-4)  # (1, 1, 28, 28)
    guess = torch.logit(mean).expand(len(validation), -1, -1, -1)
    constant = bernoulli_nll(guess, validation.pixels()).mean().item()
    reject(
        scores["loss"] < constant,
        f"On validation: yours {scores['loss']:.1f} nats, always guessing the mean image "
        f"{constant:.1f}; train longer or look at the KL ({scores['kl']:.1f}).",
    )
    return (
        f"on validation {scores['loss']:.1f} nats per image with {units} active units; "
        f"the mean image has {constant:.1f}."
    )
