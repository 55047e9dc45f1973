"""The two fully connected models: shapes, sizes, and what `forward` is made of."""

import pytest
import torch
from torch import nn

from helpers.models.distributions import DiagonalGaussian
from helpers.models.mlp_vae import MLPVAE, Autoencoder, mlp
from helpers.rng import generator_for

both = pytest.mark.parametrize("kind", [Autoencoder, MLPVAE])


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def linear(part: nn.Sequential) -> list[tuple[int, int]]:
    """(inputs, outputs) of the linear layers."""
    layers = [layer for layer in part if isinstance(layer, nn.Linear)]
    return [(layer.in_features, layer.out_features) for layer in layers]


def test_mlp_has_a_relu_between_layers_and_none_after_the_last():
    layers = mlp(5, 4, 3, 2)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert linear(layers) == [(5, 4), (4, 3), (3, 2)]


def test_the_classic_784_400_20_has_its_known_size():
    assert sum(p.numel() for p in MLPVAE(20, (400,)).parameters()) == 652_824


@both
def test_the_decoder_is_the_encoder_reversed(kind):
    model = kind(3, (16, 8))
    code = 6 if kind is MLPVAE else 3  # means and log-variances
    assert linear(model.encoder) == [(784, 16), (16, 8), (8, code)]
    assert linear(model.decoder) == [(3, 8), (8, 16), (16, 784)]


@both
@pytest.mark.parametrize("hidden", [(), (16, 8)])
def test_forward_decodes_its_z(kind, hidden):
    model = kind(5, hidden)
    output = model(images(), generator_for(0))
    assert output.decoded.shape == (3, 1, 28, 28) and output.z.shape == (3, 5)
    assert torch.equal(output.decoded, model.decode(output.z))


@both
def test_the_config_rebuilds_the_model(kind):
    model = kind(5, (16, 8))
    again = kind(**model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    same = again(images(), generator_for(0)), model(images(), generator_for(0))
    assert torch.equal(same[0].decoded, same[1].decoded)


def test_encoding_does_not_sample():
    model = MLPVAE(3, (8,))
    posterior = model.encode(images())
    assert isinstance(posterior, DiagonalGaussian)
    moments = torch.cat([posterior.mean, posterior.logvar], dim=1)  # the mean comes first
    assert torch.equal(model.encoder(images().flatten(1)), moments)


def test_forward_samples_with_the_generator_it_is_given():
    model = MLPVAE(3, (8,))
    output = model(images(), generator_for(7))
    assert torch.equal(output.z, model.encode(images()).sample(generator_for(7)))
    assert not torch.equal(output.z, model(images(), generator_for(8)).z)
    assert torch.equal(output.posterior.mean, model.encode(images()).mean)


def test_every_parameter_learns():
    model = MLPVAE(2, (8,))
    output = model(images())
    (output.decoded.sum() + output.posterior.kl().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
