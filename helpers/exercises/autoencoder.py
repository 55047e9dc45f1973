"""Checks of notebook 1's exercises; `helpers.exercises.check` says how a check works."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from helpers.data.datasets import load_mnist
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
from helpers.rng import generator_for

# --- the linear code ---


@in_place("helpers.models.pca:principal_components")
def principal_components(answer: Callable, course: Callable) -> str:
    """answer(x, k) -> the mean (D,) and the first k principal directions (k, D) of rows (N, D)."""
    for rows, columns, k in ((60, 35, 4), (20, 31, 2)):
        generator = generator_for("pca", rows)
        mixing = torch.randn(6, columns, generator=generator)
        x = torch.randn(rows, 6, generator=generator) @ mixing + 3.0  # far from the origin
        given = x.clone()
        got = answer(given, k)
        reject(torch.equal(given, x), "You changed the caller's images; compute new tensors.")
        pair = isinstance(got, tuple) and len(got) == 2
        reject(pair, "Return two things: `return mean, directions`.")
        _compare_directions(*got, x, k, course)
    return "The same as scikit-learn's PCA."


def _compare_directions(mean, directions, x: torch.Tensor, k: int, course: Callable) -> None:
    """The learner's mean and directions against scikit-learn's; the sign of each is free."""
    from sklearn.decomposition import PCA

    d = x.shape[1]
    expect_shape(mean, (d,), "The mean")
    reject(close(mean, x.mean(0)), "The mean should be the mean image: x.mean(0).")
    is_turned = isinstance(directions, torch.Tensor) and tuple(directions.shape) == (d, k)
    reject(
        not is_turned,
        f"Your directions are columns, {(d, k)}: return them as rows. `torch.linalg.svd` gives Vᵀ, "
        "whose rows they are.",
    )
    is_code = isinstance(directions, torch.Tensor) and tuple(directions.shape) == (len(x), k)
    reject(not is_code, "These are the codes of the images; return the directions, (k, D).")
    expect_shape(directions, (k, d), f"For k = {k} the directions")

    lengths = directions.norm(dim=1)
    reject(
        torch.allclose(lengths, torch.ones(k), atol=1e-3),
        f"Every direction should have length 1, and your first one has {lengths[0]:.2f}: "
        "leave the singular values out.",
    )
    right = torch.from_numpy(PCA(k, svd_solver="full").fit(x.numpy()).components_)
    everything = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2]
    for wrong, sentence in (
        (
            torch.linalg.svd(x, full_matrices=False)[2][:k],
            "You did not centre: subtract the mean before the SVD, "
            "or the first direction points at the mean.",
        ),
        (everything[-k:], "You kept the last directions; the most important ones come first."),
        (
            everything[:, :k].T,
            "You cut columns out of Vᵀ; the directions are its rows: directions[:k].",
        ),
    ):
        reject(not _along(directions, wrong), sentence)
    reject(_along(directions, right), "Your directions are not those of scikit-learn's PCA.")


def _along(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether rows of equal length point along the same lines, in the same order."""
    return a.shape == b.shape and close((a * b).sum(1).abs(), torch.ones(len(a)), 1e-3)


# --- the network ---


@in_place("helpers.models.mlp_vae:mlp")
def mlp(answer: Callable, course: Callable) -> str:
    """answer(*sizes) -> nn.Sequential of linear layers with a ReLU between each two."""
    for sizes in ((5, 7, 3), (6, 4), (9, 8, 3, 2)):
        call = f"mlp{sizes}"
        mine, theirs = answer(*sizes), course(*sizes)
        is_network = isinstance(mine, nn.Sequential)
        kind = "None" if mine is None else f"of type {type(mine).__name__}"
        reject(
            is_network,
            f"{call} should be one nn.Sequential(*layers), whose weights PyTorch sees, "
            f"and yours is {kind}.",
        )
        linear = [layer for layer in mine if isinstance(layer, nn.Linear)]
        have = [(layer.in_features, layer.out_features) for layer in linear]
        wanted = list(zip(sizes, sizes[1:], strict=False))
        reject(have == wanted, f"{call} should have linear layers {wanted}, and yours has {have}.")
        reject(
            not isinstance(mine[-1], nn.ReLU),
            "No ReLU after the last layer: a code, or a logit, may be negative.",
        )
        bends = [layer for layer in mine if not isinstance(layer, nn.Linear)]
        reject(
            len(bends) == len(sizes) - 2,
            f"A ReLU stands between each two linear layers: {call} needs {len(sizes) - 2}, "
            f"and yours has {len(bends)}.",
        )
        other = [type(layer).__name__ for layer in bends if not isinstance(layer, nn.ReLU)]
        reject(not other, f"Between the linear layers stands nn.ReLU, and not {other[:1]}.")
        names = list(mine.state_dict()) == list(theirs.state_dict())
        reject(
            names,
            "The order should be Linear, ReLU, Linear, ReLU, …, Linear, each linear layer with "
            "its bias: checkpoints find weights by their place.",
        )
    return "Linear, bent, linear."


@in_place("helpers.models.mlp_vae:Autoencoder")
def autoencoder(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer: the class, made of `latent` and `hidden`, with encode, decode and forward."""
    generator = generator_for("autoencoder")
    x = torch.rand(7, 1, 28, 28, generator=generator)
    for arguments in ({}, {"latent": 3, "hidden": (40, 24)}, {"latent": 5, "hidden": (16,)}):
        mine, theirs = twins(answer, course, **arguments)
        z = mine.encode(x)
        right = theirs.encode(x)
        expect_shape(z, tuple(right.shape), "What `encode` returns")
        reject(
            close(z, right),
            "`encode` should flatten the images, (B, 784), and return what `self.encoder` makes "
            "of them, unchanged: a code may be any number.",
        )

        z = 3 * torch.randn(right.shape, generator=generator)
        decoded = mine.decode(z)
        right = theirs.decode(z)  # (7, 1, 28, 28)
        expect_shape(decoded, (7, 1, 28, 28), "What `decode` returns")
        reject_mistakes(
            decoded,
            (right.sigmoid(), "`decode` returns logits: the sigmoid is taken by whoever looks."),
            (right.relu(), "`decode` returns logits, and a ReLU cuts the negative ones off."),
        )
        reject(close(decoded, right), "`decode` should return what `self.decoder` makes of z.")
        _compare_outputs(mine(x), theirs(x))
    return "The weights of the course's checkpoints fit, and give the same pictures."


def _compare_outputs(output, right: tuple[torch.Tensor, torch.Tensor]) -> None:
    """What the learner's forward returns against what the course's does."""
    named = hasattr(output, "decoded") and hasattr(output, "z")
    reject(named, "`forward` should return AutoencoderOutput(decoded, z).")
    swapped = "You swapped them: AutoencoderOutput(decoded, z)."
    reject(tuple(output.z.shape) != tuple(right.decoded.shape), swapped)
    same = close(output.decoded, right.decoded) and close(output.z, right.z)
    reject(same, "`forward` should encode the images, decode the code, and return both.")


# --- the loss ---


@in_place("helpers.training.by_hand:sum_of_squares")
def sum_of_squares(answer: Callable, course: Callable) -> str:
    """answer(image, x) -> the squared error of each image, (B,)."""
    for shape in ((5, 1, 28, 20), (3, 2, 9, 4)):
        x, y = (torch.rand(shape, generator=generator_for("error", *shape, i)) for i in (0, 1))
        truth = course(x, y)
        got = answer(x, y)
        _expect_one_each(got, len(x))
        reject_mistakes(
            got,
            (
                truth / x[0].numel(),
                'You averaged over the pixels; sum them, so that the unit is "per image".',
            ),
            (truth.sqrt(), "You took a square root; the squared error has none."),
            ((x - y).abs().flatten(1).sum(1), "You took absolute values; square the differences."),
            ((x - y).flatten(1).sum(1).square(), "Square each difference first, and then sum."),
        )
        reject(
            close(got, truth),
            f"The first image's error should be {truth[0]:.3f}, and yours is {got[0]:.3f}.",
        )
    return "One number per image, summed over its pixels."


@in_place("helpers.training.by_hand:first_loss")
def first_loss(answer: Callable, course: Callable) -> str:
    """answer(x) -> the squared error of each image when every pixel is answered with ½, (B,)."""
    for shape in ((6, 1, 28, 20), (4, 1, 8, 6)):
        x = torch.rand(shape, generator=generator_for("first", *shape)).square()
        truth = course(x)
        got = answer(x)
        _expect_one_each(got, len(x), x[0].numel() / 4)
        reject_mistakes(
            got,
            (truth / x[0].numel(), "You averaged over the pixels; the loss sums them."),
            (
                x.square().flatten(1).sum(1),
                "That is the loss of a black answer; the sigmoid of 0 is ½, and not 0.",
            ),
            ((0.5 - x).abs().flatten(1).sum(1), "The loss squares the differences."),
            (truth.sqrt(), "You took a square root; the squared error has none."),
            (
                torch.full((len(x),), x[0].numel() / 4),
                "That is right for black and white pixels alone; grey ones are nearer to ½.",
            ),
        )
        reject(
            close(got, truth),
            f"For the first image Σ(½ − x)² is {truth[0]:.3f}, and yours is {got[0]:.3f}.",
        )
    return "Known before any training."


def _expect_one_each(got, count: int, for_binary: float | None = None) -> None:
    """Reject what is not one number for each of `count` images."""
    reject(got is not None, "Your function returns nothing: end it with `return`.")
    alone = isinstance(got, int | float) or getattr(got, "ndim", 1) == 0
    constant = alone and for_binary is not None and abs(float(got) - for_binary) < 1e-3
    reject(
        not constant,
        "A quarter for each pixel is right for black and white alone; grey pixels are nearer to ½.",
    )
    reject(
        not alone,
        "One number for the whole batch hides which image is bad; return one per image, (B,).",
    )
    expect_shape(got, (count,), "The error")


# --- training ---


class _Affine(nn.Module):
    """A network small enough for a check, with two parameters."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def _affine_loss(model, batch, generator) -> dict[str, torch.Tensor]:
    return {"loss": (model(batch["images"]) - 1).square().sum(1)}


def _case(inputs: int, rows: int) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """(a network with a gradient left over from an earlier step, a batch)."""
    torch.manual_seed(inputs)
    model = _Affine(inputs, 3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model, {"images": torch.randn(rows, inputs)}


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@in_place("helpers.training.by_hand:training_step")
def training_step(answer: Callable, course: Callable) -> str:
    """answer(model, optimizer, loss, batch) -> the batch's mean loss; one step of the optimiser."""
    for inputs, rows in ((4, 6), (2, 9)):
        model, batch = _case(inputs, rows)
        before = _weights(model)
        first = _affine_loss(model, batch, None)["loss"].detach()

        def after(step, start=model, batch=batch):
            """(what `step` returns, the network after it, whether a gradient was computed)."""
            twin = copy.deepcopy(start)
            for mine, theirs in zip(twin.parameters(), start.parameters(), strict=True):
                mine.grad = theirs.grad.clone()
            traced = []

            def watched(net, given, generator, traced=traced):
                terms = _affine_loss(net, given, generator)
                terms["loss"].register_hook(traced.append)
                return terms

            optimizer = torch.optim.SGD(twin.parameters(), 0.1)
            return step(twin, optimizer, watched, batch), twin, bool(traced)

        value, trained, traced = after(answer)
        got = _weights(trained)
        _explain_unchanged(trained, torch.equal(got, before), traced)
        reject_mistakes(
            got,
            (
                _weights(after(_without_zero_grad)[1]),
                "You did not forget the last step's gradient: PyTorch adds to it, "
                "so begin with optimizer.zero_grad().",
            ),
            (
                _weights(after(_with_sum)[1]),
                "You summed the losses over the batch; take their mean, so that the step does not "
                "grow with the batch.",
            ),
            (
                2 * before - _weights(after(course)[1]),
                "Your loss goes up: minimise the loss, not its negative.",
            ),
        )
        reject(
            close(got, _weights(after(course)[1])),
            "The weights are not those after zero_grad, backward and one optimizer.step().",
        )
        _compare_value(value, first, _affine_loss(trained, batch, None)["loss"].mean().item())
    return "Forget, measure, trace back, step."


def _explain_unchanged(model: nn.Module, unchanged: bool, traced: bool) -> None:
    """Reject weights that have not moved, and say why; traced: whether backward was called."""
    if not unchanged:
        return
    gradients = [parameter.grad for parameter in model.parameters()]
    erased = all(gradient is None or not gradient.any() for gradient in gradients)
    reject(
        traced or not erased,
        "No weight has changed, and no gradient was computed: call backward() on the mean loss.",
    )
    reject(
        not erased,
        "No weight has changed: you erased the gradient again, zero_grad comes before backward().",
    )
    reject(False, "No weight has changed: optimizer.step() is missing, or comes too early.")


def _without_zero_grad(model, optimizer, loss, batch) -> None:
    loss(model, batch, None)["loss"].mean().backward()
    optimizer.step()


def _with_sum(model, optimizer, loss, batch) -> None:
    optimizer.zero_grad()
    loss(model, batch, None)["loss"].sum().backward()
    optimizer.step()


def _compare_value(value, first: torch.Tensor, later: float) -> None:
    """The number that a step returns against the batch's losses before it, (B,), and after it."""
    reject(value is not None, "The step is right, and returns nothing: return the mean loss.")
    reject(
        not isinstance(value, torch.Tensor),
        "The step is right; return a plain number, value.item(): "
        "a tensor would keep the whole computation in memory.",
    )
    is_number = isinstance(value, int | float)
    reject(is_number, f"Return the mean loss as a number, and not as {type(value).__name__}.")
    reject_mistakes(
        value,
        (first.sum().item(), "You return the sum of the losses; return their mean."),
        (later, "You return the loss after the step; the one before it costs nothing more."),
    )
    mean = first.mean().item()
    reject(abs(value - mean) < 1e-4, f"The mean loss was {mean:.4f}, and you return {value:.4f}.")


@in_place("helpers.training.by_hand:overfit")
def overfit(answer: Callable, course: Callable) -> str:
    """answer(model, loss, batch, steps, lr) -> the losses of that many Adam steps on one batch."""
    for inputs, steps, lr in ((4, 12, 0.05), (3, 7, 0.2)):
        model, batch = _case(inputs, 8)
        mine, theirs = copy.deepcopy(model), copy.deepcopy(model)
        seen = []

        def watched(net, given, generator, seen=seen):
            seen.append(given)
            return _affine_loss(net, given, generator)

        got = answer(mine, watched, batch, steps, lr)
        right = course(theirs, _affine_loss, batch, steps, lr)
        reject(got is not None, "Your function returns nothing: return the list of losses.")
        reject(
            not isinstance(got, int | float),
            "That is one number; return the losses of all steps, a list.",
        )
        kind = type(got).__name__
        reject(isinstance(got, list), f"Return the losses as a list, and not as {kind}.")
        numbers = all(isinstance(value, int | float) for value in got)
        reject(numbers, "The losses should be plain numbers, as training_step returns them.")
        reject(len(got) == steps, f"Asked for {steps} steps, you return {len(got)} losses.")
        reject(not torch.equal(_weights(mine), _weights(model)), "The model was not trained.")
        reject_mistakes(
            got,
            (
                _forgetful(copy.deepcopy(model), batch, steps, lr),
                "Make the optimiser once, before the loop: Adam remembers past gradients, and a "
                "new one in each step has forgotten them.",
            ),
            (
                _overfit_with(torch.optim.SGD, copy.deepcopy(model), batch, steps, lr),
                "That is plain gradient descent; the task asks for torch.optim.Adam.",
            ),
        )
        reject(
            close(torch.tensor(got), torch.tensor(right)),
            f"After {steps} steps of Adam with lr {lr} the loss should be {right[-1]:.4f}, "
            f"and yours is {got[-1]:.4f}.",
        )
    return "One batch, again and again."


def _forgetful(model, batch, steps: int, lr: float) -> list[float]:
    """Losses with a new Adam for every step."""
    return [_overfit_with(torch.optim.Adam, model, batch, 1, lr)[0] for _ in range(steps)]


def _overfit_with(kind: type, model, batch, steps: int, lr: float) -> list[float]:
    optimizer = kind(model.parameters(), lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = _affine_loss(model, batch, None)["loss"].mean()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


# --- noise, and made-up codes ---


@in_place("helpers.data.augment:add_gaussian_noise")
def add_gaussian_noise(answer: Callable, course: Callable) -> str:
    """answer(x, sigma, generator) -> noisy images in [0, 1]."""
    for sigma, shape in ((0.05, (40, 2, 28, 20)), (0.02, (30, 1, 10, 24))):
        x = 0.4 + 0.2 * torch.rand(shape, generator=generator_for("grey", *shape))
        given = x.clone()
        got = answer(given, sigma, generator_for("noise"))
        reject(torch.equal(given, x), "You changed the caller's images; return new ones.")
        expect_shape(got, shape, "The noisy batch")
        axes = ("images", "channels", "rows", "columns")
        noise = ((got - x) / sigma).movedim(1, -1 if shape[1] == 1 else 1)
        if shape[1] == 1:
            noise, axes = noise[..., 0], ("images", "rows", "columns")
        expect_normal(
            noise,
            axes,
            "The noise should be 0 on average, and yours is {} standard deviations: "
            "every image would become brighter or darker.",
            "The noise should have standard deviation `sigma`, and yours has {} times that.",
        )
    strong = answer(x, 1.0, generator_for("noise"))
    inside = 0 <= strong.min().item() and strong.max().item() <= 1
    reject(inside, "Some pixels left [0, 1]; clamp, because images are in that range.")
    expect_generator(lambda generator: answer(x, 0.1, generator))
    return "Normal, new in each pixel, and inside [0, 1]."


@in_place("helpers.metrics.samples:GaussianCodes")
def gaussian_codes(answer: type, course: type) -> str:
    """answer(codes (N, latent)).sample(count, generator) -> (count, latent)."""
    for mixing, mean in (
        ([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [0.0, -1.0, 1.0]], [4.0, 0.0, -2.0]),
        ([[0.6, 0.0], [-2.0, 1.0]], [-3.0, 1.0]),
    ):
        latent = len(mean)
        codes = torch.randn(5000, latent, generator=generator_for("codes", latent))
        codes = codes @ torch.tensor(mixing).T + torch.tensor(mean)
        fitted = answer(codes.clone())
        got = fitted.sample(20_000, generator_for("draws"))
        expect_shape(got, (20_000, latent), "What `sample` returns")
        reject(
            not (got[:50, None].float() == codes).all(2).any(),
            "These are codes of the training set; draw new ones from the fitted Gaussian.",
        )
        _compare_moments(got.float(), codes)
        expect_generator(lambda generator, fitted=fitted: fitted.sample(9, generator))
    return "Mean and covariance are those of the codes."


def _compare_moments(got: torch.Tensor, codes: torch.Tensor) -> None:
    """Mean and covariance of draws against those of the codes, with the usual mistakes."""
    reject(
        (got.mean(0) - codes.mean(0)).abs().max() < 0.15,
        "The mean is off: add the mean of the codes to the noise.",
    )
    found, truth = torch.cov(got.T), torch.cov(codes.T)
    root = torch.linalg.cholesky(truth)
    for wrong, sentence in (
        (
            torch.diag(truth.diag()),
            "Each dimension has the right spread, but they vary independently; "
            "use the full covariance (its Cholesky factor).",
        ),
        (
            root.T @ root,
            "With L = cholesky(C) and draws as rows, noise @ L.T has covariance C, "
            "and noise @ L has not.",
        ),
        (truth @ truth, "You multiplied the noise by the covariance; multiply by its root."),
        (torch.eye(len(truth)), "The draws have the covariance of plain noise: use the root."),
    ):
        reject(not torch.allclose(found, wrong, atol=0.05 * float(wrong.abs().max())), sentence)
    reject(
        torch.allclose(found, truth, atol=0.05 * float(truth.abs().max())),
        f"The first dimension's variance should be {truth[0, 0]:.2f}, and yours is "
        f"{found[0, 0]:.2f}.",
    )


# --- your own ---


@exercise
def my_autoencoder(answer: Callable) -> str:
    """answer(train) -> a trained model with 8 latent dimensions, better than PCA on validation."""
    from helpers.models.pca import principal_components as components

    train, validation = load_mnist("train").split(budget(quick=200, cpu=5000, gpu=5000))
    model = answer(train)
    reject(model is not None, "Your function returns nothing: end it with `return model`.")
    reject(isinstance(model, nn.Module), "Return the trained model, which is an nn.Module.")
    on = next(model.parameters()).device
    x = validation.pixels(on)
    with torch.no_grad():
        z = model.encode(x)
        expect_shape(z, (len(x), 8), "The code")
        decoded = torch.sigmoid(model.decode(z))
    reject(decoded.shape == x.shape, f"`decode` should give {tuple(x.shape)}, as logits.")
    error = (decoded - x).square().mean().item()

    mean, directions = components(train.pixels().flatten(1), 8)
    flat = validation.pixels().flatten(1)
    code = (flat - mean) @ directions.T  # (N, 8)
    linear = (code @ directions + mean).clamp(0, 1).sub(flat).square().mean().item()
    reject(
        error < linear,
        f"Squared error per pixel on validation: yours {error:.4f}, PCA's {linear:.4f}; "
        "train longer, or check that the loss compares with the input.",
    )
    return f"on validation {error:.4f} per pixel, where PCA with 8 dimensions has {linear:.4f}."
