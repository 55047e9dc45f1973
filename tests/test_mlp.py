"""The two fully connected models: shapes, sizes, and what `forward` is made of."""

import pytest
import torch
from torch import nn

from helpers.budget import generator_for
from helpers.distributions import DiagonalGaussian
from helpers.mlp import MLPVAE, Autoencoder, mlp


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_mlp_has_a_relu_between_layers_and_none_after_the_last():
    layers = list(mlp(5, 4, 3, 2))
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert [(layer.in_features, layer.out_features) for layer in layers[::2]] == [(5, 4), (4, 3), (3, 2)]


def test_the_classic_784_400_20_has_its_known_size():
    assert sum(p.numel() for p in MLPVAE(20, (400,)).parameters()) == 652_824


@pytest.mark.parametrize("kind", [Autoencoder, MLPVAE])
@pytest.mark.parametrize("hidden", [(), (8,), (16, 8)])
def test_shapes(kind, hidden):
    output = kind(3, hidden)(images())
    assert output.decoded.shape == (3, 1, 28, 28) and output.z.shape == (3, 3)


@pytest.mark.parametrize("kind", [Autoencoder, MLPVAE])
def test_the_decoder_is_the_encoder_reversed(kind):
    model = kind(3, (16, 8))
    encoder, decoder = ([layer for layer in part if isinstance(layer, nn.Linear)] for part in (model.encoder, model.decoder))
    assert [layer.in_features for layer in encoder] == [784, 16, 8]
    assert [(layer.in_features, layer.out_features) for layer in decoder] == [(3, 8), (8, 16), (16, 784)]


@pytest.mark.parametrize("kind", [Autoencoder, MLPVAE])
def test_the_config_rebuilds_the_model(kind):
    model = kind(5, (16, 8))
    again = kind(**model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    assert torch.equal(again(images(), generator_for(0)).decoded, model(images(), generator_for(0)).decoded)


@pytest.mark.parametrize("kind", [Autoencoder, MLPVAE])
def test_forward_decodes_its_z(kind):
    model = kind(3, (8,))
    output = model(images(), generator_for(0))
    assert torch.equal(output.decoded, model.decode(output.z))


def test_encoding_does_not_sample():
    model = MLPVAE(3, (8,))
    first, again = model.encode(images()), model.encode(images())
    assert isinstance(first, DiagonalGaussian) and first.mean.shape == first.logvar.shape == (3, 3)
    assert torch.equal(first.mean, again.mean) and torch.equal(first.logvar, again.logvar)
    both = model.encoder(images().flatten(1))
    assert torch.equal(both, torch.cat([first.mean, first.logvar], dim=1))  # mean first


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
