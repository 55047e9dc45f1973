"""The family of VAEs: shapes, closed forms, and who learns from which term."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Independent, Normal, kl_divergence

from helpers import variants, vector_quantised
from helpers.budget import generator_for
from helpers.data import Batch
from helpers.distributions import DiagonalGaussian
from helpers.losses import bernoulli_nll

LABELS = torch.tensor([3, 1, 4, 1, 5])


def images(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=generator_for("images"))


def batch() -> Batch:
    return Batch(images(), LABELS)


def gaussian(name: str, *shape: int) -> DiagonalGaussian:
    return DiagonalGaussian(*(torch.randn(*shape, generator=generator_for(name, part)) for part in ("mean", "logvar")))


def as_torch(p: DiagonalGaussian) -> Independent:
    return Independent(Normal(p.mean, p.std), 1)


# --- conditional ---


def test_drawings_come_back_in_their_shape():
    x = torch.rand(2, 3, 32, 32, generator=generator_for("drawings"))
    out = variants.DrawingVAE(latent=4, hidden=(8,))(x, generator_for("z"))
    assert out.decoded.shape == x.shape and out.posterior.mean.shape == (2, 4)
    assert bernoulli_nll(out.decoded, x).shape == (2,)


def test_the_label_reaches_encoder_and_decoder():
    model, x = variants.ConditionalVAE(6, (16,)), images()
    z = torch.randn(5, 6)
    assert model.decode(z, LABELS).shape == x.shape
    other = (LABELS + 1) % 10
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


def gradients_of(term: str) -> set[str]:
    """The parts of the network that a term of the adversarial loss moves."""
    torch.manual_seed(0)
    model = variants.AdversarialAutoencoder(6, (16,))
    variants.adversarial_autoencoder_loss(model, batch(), generator_for(0))[term].sum().backward()
    return {name.split(".")[0] for name, w in model.named_parameters() if w.grad is not None and w.grad.abs().sum() > 0}


def test_each_player_learns_from_its_own_term():
    assert gradients_of("telling") == {"discriminator"}
    assert gradients_of("fooling") == {"encoder"}
    assert gradients_of("reconstruction") == {"encoder", "decoder"}


def test_an_undecided_discriminator_costs_log_two_each():
    model = variants.AdversarialAutoencoder(6, (16,))
    for weight in model.discriminator[-1].parameters():
        torch.nn.init.zeros_(weight)
    terms = variants.adversarial_autoencoder_loss(model, batch(), generator_for(0), weight=10.0)
    torch.testing.assert_close(terms["fooling"], torch.full((5,), math.log(2)))
    torch.testing.assert_close(terms["telling"], torch.full((5,), 2 * math.log(2)))
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 12 * math.log(2))


# --- hierarchical ---


def test_kl_of_two_gaussians_is_that_of_torch():
    q, p = gaussian("q", 4, 3), gaussian("p", 4, 3)
    torch.testing.assert_close(variants.kl_between(q, p), kl_divergence(as_torch(q), as_torch(p)))
    torch.testing.assert_close(variants.log_density(q.mean, p), as_torch(p).log_prob(q.mean))


def test_merging_multiplies_the_densities():
    a, b = gaussian("a", 1, 1), gaussian("b", 1, 1)
    z = torch.linspace(-12, 12, 20001)[:, None]
    product = (as_torch(a).log_prob(z) + as_torch(b).log_prob(z)).exp()
    product = product / torch.trapezoid(product, z[:, 0])
    merged = as_torch(variants.precision_weighted(a, b)).log_prob(z).exp()
    torch.testing.assert_close(merged, product, rtol=1e-3, atol=1e-4)


def test_the_hierarchical_loss_adds_up_and_bounds_the_likelihood():
    torch.manual_seed(0)
    model, x = variants.HierarchicalVAE((5, 3), (24, 12)), images()
    terms = variants.hierarchical_loss(model, batch(), generator_for(0))
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + terms["upper"] + terms["lower"])
    with torch.no_grad():
        losses = [variants.hierarchical_loss(model, batch(), generator_for(i))["loss"] for i in range(400)]
    bound = torch.stack(losses).mean(0)
    one = torch.stack([variants.hierarchical_nll(model, x, 1, generator_for("one", i)) for i in range(400)]).mean(0)
    torch.testing.assert_close(one, bound, rtol=5e-3, atol=0.5)
    assert (variants.hierarchical_nll(model, x, 200, generator_for("many")) < bound + 0.1).all()


def test_the_uppermost_prior_is_the_standard_normal():
    torch.manual_seed(0)
    model = variants.HierarchicalVAE((5, 3), (24, 12))
    upper = model(images(), generator_for(0)).posteriors[0]
    terms = variants.hierarchical_loss(model, batch(), generator_for(0))
    torch.testing.assert_close(terms["upper"], upper.kl())


def test_small_variances_survive_mixed_precision():
    torch.manual_seed(0)
    model = variants.HierarchicalVAE((5, 3), (24, 12))
    with torch.no_grad():
        model.p1[-1].bias[5:] = -14.0  # what the prior says of z1 is as good as certain
    exact = variants.hierarchical_loss(model, batch(), generator_for(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = variants.hierarchical_loss(model, batch(), generator_for(0))
    for term in ("loss", "upper", "lower"):
        torch.testing.assert_close(mixed[term], exact[term], rtol=0.02, atol=0.05)


def test_the_decoder_sees_both_levels():
    torch.manual_seed(0)
    model, z1, z2 = variants.HierarchicalVAE((5, 3), (24, 12)), torch.randn(2, 5), torch.randn(2, 3)
    decoded = model.decode(z1, z2)
    assert decoded.shape == (2, 1, 28, 28)
    assert not torch.allclose(decoded, model.decode(z1, -z2)) and not torch.allclose(decoded, model.decode(-z1, z2))


# --- vector quantised ---


def test_every_place_takes_the_nearest_entry():
    torch.manual_seed(0)
    book, z = vector_quantised.Codebook(7, 4), torch.randn(2, 4, 3, 5)
    codes = book.nearest(z)
    assert codes.shape == (2, 3, 5)
    distance = (z[:, None] - book.vectors[None, :, :, None, None]).square().sum(2)  # (B, 7, 3, 5)
    assert torch.equal(codes, distance.argmin(1))
    assert torch.equal(book.look_up(codes)[1, :, 2, 4], book.vectors[codes[1, 2, 4]])


def test_entries_move_to_the_mean_of_what_chose_them():
    book = vector_quantised.Codebook(2, 1, decay=0.5)
    for name, value in {"vectors": [[-1.0], [1.0]], "sums": [[-1.0], [1.0]], "counts": [1.0, 1.0]}.items():
        getattr(book, name).copy_(torch.tensor(value))
    z = torch.tensor([-3.0, -5.0, 2.0]).view(1, 1, 1, 3)
    for _ in range(60):
        book.learn(z, book.nearest(z), generator_for(0))
    torch.testing.assert_close(book.vectors, torch.tensor([[-4.0], [2.0]]))


def test_an_entry_that_nobody_chooses_begins_anew_where_something_is():
    book = vector_quantised.Codebook(3, 1, decay=0.0)
    book.vectors.copy_(torch.tensor([[0.0], [1.0], [500.0]]))
    z = torch.rand(4, 1, 6, 6, generator=generator_for("z"))
    book.learn(z, book.nearest(z), generator_for(0))
    assert 0 <= book.vectors[2].item() <= 1


def test_the_gradient_passes_straight_through():
    torch.manual_seed(0)
    model, x = vector_quantised.VQVAE(8, 4, 16), images()
    out = model(x)
    quantised = out.quantised.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(bernoulli_nll(model.decoder(quantised), x).sum(), quantised)
    (found,) = torch.autograd.grad(bernoulli_nll(out.decoded, x).sum(), out.z)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(model.eval().decode(model.encode(x)), model(x).decoded)


def test_the_codebook_learns_in_training_alone():
    model, x = vector_quantised.VQVAE(8, 4, 16), images()
    before = model.codebook.vectors.clone()
    model.eval()(x)
    assert torch.equal(model.codebook.vectors, before)
    model.train()(x)
    assert not torch.equal(model.codebook.vectors, before)


def test_the_codebook_learns_in_half_precision_too():
    model = vector_quantised.VQVAE()
    before = model.codebook.vectors.clone()
    with torch.autocast("cpu", torch.bfloat16):
        model(images(), torch.Generator().manual_seed(0))
    assert model.codebook.vectors.dtype == torch.float32
    assert not torch.equal(model.codebook.vectors, before)


def test_the_prior_sees_only_what_came_before():
    torch.manual_seed(0)
    prior = vector_quantised.CodePrior(5, 12)
    codes = torch.randint(0, 5, (2, 9))
    other = codes.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 5
    a, b = prior(codes), prior(other)
    torch.testing.assert_close(a[:, :5], b[:, :5])
    assert not torch.allclose(a[:, 5:], b[:, 5:])


def test_the_prior_draws_what_it_believes():
    """Of two codes, the frequency of each pair is the product of the probabilities."""
    torch.manual_seed(0)
    prior = vector_quantised.CodePrior(2, 8)
    prior.head.weight.data.mul_(8)
    drawn = prior.sample(20_000, 2, generator_for("draw"))
    pairs = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    with torch.no_grad():
        believed = prior(pairs).log_softmax(2).gather(2, pairs[..., None]).sum((1, 2)).exp()
    found = torch.bincount(2 * drawn[:, 0] + drawn[:, 1], minlength=4) / len(drawn)
    assert believed.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(found, believed, rtol=0, atol=0.012)


def test_the_encoder_is_held_to_the_entries_it_chose():
    model, given = vector_quantised.VQVAE(codes=4, width=3, hidden=8).eval(), batch()
    out = model(given.images)
    apart = (out.z - out.quantised).square().mean((1, 2, 3))
    parts = vector_quantised.vq_loss(model, given, generator_for("vq"))
    torch.testing.assert_close(parts["apart"], apart)
    torch.testing.assert_close(parts["loss"], bernoulli_nll(out.decoded, given.images) + 25 * apart)
    parts["apart"].sum().backward()
    assert model.encoder[-1].weight.grad.abs().sum() > 0 and model.decoder[0].weight.grad is None


def test_the_loss_of_codes_is_their_cross_entropy():
    torch.manual_seed(0)
    prior, codes = vector_quantised.CodePrior(5, 12), torch.randint(0, 5, (6, 9))
    found = vector_quantised.code_loss(prior, Batch(images(), torch.tensor([4, 0])), generator_for(0), codes)["loss"]
    expected = F.cross_entropy(prior(codes[4:5])[0], codes[4], reduction="sum")
    torch.testing.assert_close(found[0], expected)


# --- recurrent ---


def test_reading_what_it_wrote_and_being_taught_are_the_same():
    torch.manual_seed(0)
    model, x, z = variants.RecurrentVAE(6, 16), images(), torch.randn(5, 6)
    taught = model.teach(z, x, torch.ones(5, 28, dtype=torch.bool))
    torch.testing.assert_close(model.decode(z, start=x), taught)
    free = model.decode(z)
    torch.testing.assert_close(model.decode(z, start=free.sigmoid()), free)


def test_hidden_rows_are_not_seen():
    torch.manual_seed(0)
    model, x, z = variants.RecurrentVAE(6, 16), images(), torch.randn(5, 6)
    nothing = torch.zeros(5, 28, dtype=torch.bool)
    torch.testing.assert_close(model.teach(z, x, nothing), model.teach(z, 1 - x, nothing))


def test_rows_are_hidden_in_training_alone():
    torch.manual_seed(0)
    model, x = variants.RecurrentVAE(6, 16), images()
    for training, share in {True: 0.5, False: 0.0}.items():
        out = model.train(training)(x, generator_for("hide"))
        z, by_hand = out.z, generator_for("hide")
        model.encode(x).sample(by_hand)
        seen = torch.rand(5, 28, generator=by_hand) >= share
        torch.testing.assert_close(out.decoded, model.teach(z, x, seen))
        assert training == (not seen.all())


def test_half_a_digit_can_be_read_and_completed():
    torch.manual_seed(0)
    model, x = variants.RecurrentVAE(6, 16), images()
    half = x[:, :, :14]
    z = model.encode(half).mode()
    done, other = model.decode(z, start=half), model.decode(z, start=1 - half)
    assert done.shape == x.shape and torch.equal(done[:, :, 0], other[:, :, 0])
    assert not torch.allclose(done[:, :, 14:], other[:, :, 14:])
