"""VQ-VAE: the codebook, what the encoder and the codebook learn, and the prior of codes."""

import pytest
import torch
import torch.nn.functional as F

from helpers.models.losses import bernoulli_nll
from helpers.models.vq_vae import VQVAE, Codebook, CodePrior, code_prior_loss, vq_loss
from helpers.rng import generator_for


def images() -> torch.Tensor:
    return torch.rand(5, 1, 28, 28, generator=generator_for("images"))


def small() -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(codes=8, width=4, hidden=16)


# --- the codebook ---


def test_every_place_takes_the_nearest_entry():
    torch.manual_seed(0)
    book, z = Codebook(7, 4), torch.randn(2, 4, 3, 5)
    codes = book.nearest(z)
    assert codes.shape == (2, 3, 5)
    distance = (z[:, None] - book.vectors[None, :, :, None, None]).square().sum(2)  # (B, 7, 3, 5)
    assert torch.equal(codes, distance.argmin(1))
    assert torch.equal(book.lookup(codes)[1, :, 2, 4], book.vectors[codes[1, 2, 4]])


def test_one_update_is_an_exponential_moving_average():
    book = Codebook(2, 1, decay=0.75)
    book.vectors.copy_(torch.tensor([[-1.0], [1.0]]))
    book.sums.copy_(book.vectors)
    z = torch.tensor([-3.0, -5.0, 2.0]).view(1, 1, 1, 3)
    book.update_ema(z, book.nearest(z), generator_for(0))
    # counts 0.75 · 1 + 0.25 · (2, 1), sums 0.75 · (-1, 1) + 0.25 · (-8, 2)
    torch.testing.assert_close(book.vectors, torch.tensor([[-2.75 / 1.25], [1.25 / 1.0]]))
    for _ in range(60):
        book.update_ema(z, book.nearest(z), generator_for(0))
    torch.testing.assert_close(book.vectors, torch.tensor([[-4.0], [2.0]]))


def test_a_dead_code_restarts_where_something_is():
    book = Codebook(3, 1, decay=0.0)
    book.vectors.copy_(torch.tensor([[0.0], [1.0], [500.0]]))
    z = torch.rand(4, 1, 6, 6, generator=generator_for("z"))
    book.update_ema(z, book.nearest(z), generator_for(0))
    assert book.vectors[2] in z
    assert book.vectors[0] < 0.5 < book.vectors[1]  # those that are chosen do not restart


# --- the network ---


def test_the_gradient_passes_straight_through():
    model, x = small(), images()
    out = model(x)
    quantised = out.quantised.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(bernoulli_nll(model.decoder(quantised), x).sum(), quantised)
    (found,) = torch.autograd.grad(bernoulli_nll(out.decoded, x).sum(), out.z)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(model.eval().decode(model.encode(x)), model(x).decoded)


@pytest.mark.parametrize("half", [False, True])
def test_the_codebook_learns_in_training_alone(half):
    model, x = small(), images()
    before = model.codebook.vectors.clone()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        model.eval()(x)
        assert torch.equal(model.codebook.vectors, before)
        model.train()(x, generator_for(0))
    assert not torch.equal(model.codebook.vectors, before)
    assert model.codebook.vectors.dtype == torch.float32


def test_the_commitment_loss_holds_the_encoder_to_the_entries_it_chose():
    model, x = small().eval(), images()
    out = model(x)
    commitment = (out.z - out.quantised).square().mean((1, 2, 3))
    terms = vq_loss(model, {"images": x}, generator_for("vq"))
    torch.testing.assert_close(terms["commitment"], commitment)
    torch.testing.assert_close(terms["loss"], bernoulli_nll(out.decoded, x) + 25 * commitment)
    terms["commitment"].sum().backward()
    assert model.encoder[-1].weight.grad.abs().sum() > 0
    assert model.decoder[0].weight.grad is None


# --- the prior of codes ---


def test_the_prior_sees_only_what_came_before():
    torch.manual_seed(0)
    prior = CodePrior(5, 12)
    codes = torch.randint(0, 5, (2, 9))
    other = codes.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 5
    a, b = prior(codes), prior(other)
    torch.testing.assert_close(a[:, :5], b[:, :5])
    assert not torch.allclose(a[:, 5:], b[:, 5:])


def test_the_prior_draws_what_it_believes():
    """Of two codes, the frequency of each pair is the product of the probabilities."""
    torch.manual_seed(0)
    prior = CodePrior(2, 8)
    prior.head.weight.data.mul_(8)
    drawn = prior.sample(20_000, 2, generator_for("draw"))
    pairs = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    with torch.no_grad():
        believed = prior(pairs).log_softmax(2).gather(2, pairs[..., None]).sum((1, 2)).exp()
    found = torch.bincount(2 * drawn[:, 0] + drawn[:, 1], minlength=4) / len(drawn)
    assert believed.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(found, believed, rtol=0, atol=0.012)


def test_the_loss_of_codes_is_their_cross_entropy_per_image():
    torch.manual_seed(0)
    prior, codes = CodePrior(5, 12), torch.randint(0, 5, (6, 9))
    found = code_prior_loss(prior, {"codes": codes}, generator_for(0))["loss"]
    logits = prior(codes)
    expected = [
        F.cross_entropy(one, truth, reduction="sum")
        for one, truth in zip(logits, codes, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected))
