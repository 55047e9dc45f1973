"""Variants of the VAE: shapes, closed forms, and who learns from which term."""

import math

import torch
from torch.distributions import Independent, Normal

from helpers.models import variants
from helpers.models.distributions import DiagonalGaussian
from helpers.models.losses import bernoulli_nll
from helpers.rng import generator_for

LABELS = torch.tensor([3, 1, 4, 1, 5])


def images() -> torch.Tensor:
    return torch.rand(5, 1, 28, 28, generator=generator_for("images"))


def batch(repeats: int = 1) -> dict[str, torch.Tensor]:
    """The five images and their labels, again and again."""
    return {"images": images().repeat(repeats, 1, 1, 1), "labels": LABELS.repeat(repeats)}


def test_drawings_come_back_in_their_shape():
    x = torch.rand(2, 3, 32, 32, generator=generator_for("drawings"))
    out = variants.DrawingVAE(latent=4, hidden=(8,))(x, generator_for("z"))
    assert out.decoded.shape == x.shape and out.posterior.mean.shape == (2, 4)


# --- conditional ---


def test_the_label_reaches_encoder_and_decoder():
    model, x = variants.ConditionalVAE(6, (16,)), images()
    z, other = torch.randn(5, 6), (LABELS + 1) % 10
    assert model.decode(z, LABELS).shape == x.shape
    assert not torch.allclose(model.decode(z, LABELS), model.decode(z, other))
    assert not torch.allclose(model.encode(x, LABELS).mean, model.encode(x, other).mean)


def test_the_conditional_loss_is_the_negative_elbo():
    model, x = variants.ConditionalVAE(6, (16,)), images()
    terms = variants.conditional_loss(model, batch(), generator_for(1))
    posterior = model.encode(x, LABELS)
    z = posterior.sample(generator_for(1))
    expected = bernoulli_nll(model.decode(z, LABELS), x) + posterior.kl()
    torch.testing.assert_close(terms["loss"], expected)


# --- adversarial ---


def moved_by(term: str) -> set[str]:
    """The parts of the network that a term of the adversarial loss moves."""
    torch.manual_seed(0)
    model = variants.AdversarialAutoencoder(6, (16,))
    terms = variants.adversarial_autoencoder_loss(model, batch(), generator_for(0))
    terms[term].sum().backward()
    weights = model.named_parameters()
    return {n.split(".")[0] for n, w in weights if w.grad is not None and w.grad.abs().sum() > 0}


def test_each_player_learns_from_its_own_term():
    assert moved_by("discriminator") == {"discriminator"}
    assert moved_by("generator") == {"encoder"}
    assert moved_by("reconstruction") == {"encoder", "decoder"}


def test_an_undecided_discriminator_costs_log_two_each():
    model = variants.AdversarialAutoencoder(6, (16,))
    for weight in model.discriminator[-1].parameters():
        torch.nn.init.zeros_(weight)
    terms = variants.adversarial_autoencoder_loss(model, batch(), generator_for(0), weight=10.0)
    torch.testing.assert_close(terms["generator"], torch.full((5,), math.log(2)))
    torch.testing.assert_close(terms["discriminator"], torch.full((5,), 2 * math.log(2)))
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 12 * math.log(2))


def test_a_discriminator_that_is_right_has_less_to_lose_than_the_encoder():
    torch.manual_seed(0)
    model = variants.AdversarialAutoencoder(6, (16,))
    model.discriminator = torch.nn.Linear(6, 1)
    with torch.no_grad():
        model.encoder[-1].bias.fill_(-9.0)  # codes far from the prior
        model.discriminator.weight.fill_(1.0)  # sure that draws of N(0, I) are the larger ones
        model.discriminator.bias.fill_(20.0)
    terms = variants.adversarial_autoencoder_loss(model, batch(), generator_for(0))
    assert (terms["discriminator"] < 0.01).all() and (terms["generator"] > 20).all()


# --- hierarchical ---


def hierarchical() -> variants.HierarchicalVAE:
    torch.manual_seed(0)
    return variants.HierarchicalVAE((5, 3), (24, 12))


def test_merging_multiplies_the_densities():
    def normal(p: DiagonalGaussian) -> Independent:
        return Independent(Normal(p.mean, p.std), 1)

    a, b = (DiagonalGaussian(*torch.randn(2, 1, 1, generator=generator_for(k))) for k in "ab")
    z = torch.linspace(-12, 12, 20001)[:, None]
    product = (normal(a).log_prob(z) + normal(b).log_prob(z)).exp()
    product = product / torch.trapezoid(product, z[:, 0])
    merged = normal(variants.precision_weighted(a, b)).log_prob(z).exp()
    torch.testing.assert_close(merged, product, rtol=1e-3, atol=1e-4)


def test_the_hierarchical_loss_adds_up():
    model = hierarchical()
    terms = variants.hierarchical_loss(model, batch(), generator_for(0))
    out = model(images(), generator_for(0))
    (upper, lower), (_, prior), (z2, z1) = out.posteriors, out.priors, out.z
    torch.testing.assert_close(terms["reconstruction"], bernoulli_nll(out.decoded, images()))
    torch.testing.assert_close(terms["upper"], upper.kl())  # its prior is N(0, I)
    torch.testing.assert_close(terms["lower"], lower.kl(prior))
    torch.testing.assert_close(
        terms["loss"], terms["reconstruction"] + terms["upper"] + terms["lower"]
    )
    torch.testing.assert_close(prior.mean, model.prior(z2).mean)
    torch.testing.assert_close(out.decoded, model.decode(z1, z2))


def test_small_variances_survive_mixed_precision():
    model = hierarchical()
    with torch.no_grad():
        model.p1[-1].bias[5:] = -14.0  # what the prior says of z1 is as good as certain
    exact = variants.hierarchical_loss(model, batch(), generator_for(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = variants.hierarchical_loss(model, batch(), generator_for(0))
    for term in ("loss", "upper", "lower"):
        torch.testing.assert_close(mixed[term], exact[term], rtol=0.02, atol=0.05)


def test_the_decoder_sees_both_levels():
    model, z1, z2 = hierarchical(), torch.randn(2, 5), torch.randn(2, 3)
    decoded = model.decode(z1, z2)
    assert decoded.shape == (2, 1, 28, 28)
    assert not torch.allclose(decoded, model.decode(z1, -z2))
    assert not torch.allclose(decoded, model.decode(-z1, z2))


# --- recurrent ---


def recurrent() -> variants.RecurrentVAE:
    torch.manual_seed(0)
    return variants.RecurrentVAE(6, 16)


def test_reading_what_it_wrote_and_teacher_forcing_are_the_same():
    model, x, z = recurrent(), images(), torch.randn(5, 6)
    taught = model.teacher_forcing(z, x, torch.ones(5, 28, dtype=torch.bool))
    torch.testing.assert_close(model.decode(z, start=x), taught)
    free = model.decode(z)
    torch.testing.assert_close(model.decode(z, start=free.sigmoid()), free)


def test_hidden_rows_are_not_seen():
    model, x, z = recurrent(), images(), torch.randn(5, 6)
    seen = torch.zeros(5, 28, dtype=torch.bool)
    seen[:, 9] = True  # what row 9 is given: row 8
    changed = 1 - x
    changed[:, :, 8] = x[:, :, 8]
    given = model.teacher_forcing(z, x, seen)
    torch.testing.assert_close(given, model.teacher_forcing(z, changed, seen))
    changed[:, :, 8] = 1 - x[:, :, 8]
    other = model.teacher_forcing(z, changed, seen)
    torch.testing.assert_close(given[:, :, :9], other[:, :, :9])
    assert not torch.allclose(given[:, :, 9], other[:, :, 9])


def test_rows_are_hidden_in_training_alone():
    model, x = recurrent(), images()
    for training, share in {True: 0.5, False: 0.0}.items():
        out = model.train(training)(x, generator_for("hide"))
        by_hand = generator_for("hide")
        model.encode(x).sample(by_hand)
        seen = torch.rand(5, 28, generator=by_hand) >= share
        torch.testing.assert_close(out.decoded, model.teacher_forcing(out.z, x, seen))
        assert training == (not seen.all())


def test_half_a_digit_can_be_read_and_completed():
    model, half = recurrent(), images()[:, :, :14]
    z = model.encode(half).mode()
    done, other = model.decode(z, start=half), model.decode(z, start=1 - half)
    assert done.shape == (5, 1, 28, 28) and torch.equal(done[:, :, 0], other[:, :, 0])
    assert not torch.allclose(done[:, :, 14:], other[:, :, 14:])
