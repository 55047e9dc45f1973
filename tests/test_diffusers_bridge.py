"""The bridge to diffusers: equal to AutoencoderKL number for number, and what a wrong port would show."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from helpers import CourseError
from helpers.blocks import Downsample, ResBlock
from helpers.conv_vae import ConvVAE, VAEConfig
from helpers.diffusers_bridge import from_diffusers, to_diffusers
from tests.test_weight_names import CONFIGS

SMALL = VAEConfig((8, 16, 32), latent_channels=3, blocks=2, groups=4, scaling_factor=0.5)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """All weights random, norms and biases too: their defaults (1 and 0) would hide a wrong port."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        with torch.no_grad():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            if weight.dim() == 1:
                weight.copy_(0.3 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)
    return model.eval()


@torch.no_grad()
def difference(vae: ConvVAE, autoencoder: AutoencoderKL, dtype: torch.dtype = torch.float32) -> float:
    """The largest relative difference of means, log-variances and decoded images, on pictures of 64×96 pixels."""
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(1, 3, 64, 96, generator=generator) * 2 - 1).to(dtype)
    ours, theirs = vae.encode(x), autoencoder.encode(x).latent_dist
    pairs = [(ours.mean, theirs.mean), (ours.logvar, theirs.logvar)]
    pairs.append((vae.decode(theirs.mean), autoencoder.decode(theirs.mean).sample))
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, allowed", [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=str)
def test_stable_diffusions_own_configuration_both_ways(dtype, allowed):
    with torch.device("meta"):
        ours = ConvVAE(VAEConfig.stable_diffusion())
    ours = randomised(ours.to_empty(device="cpu").to(dtype))
    theirs = to_diffusers(ours)
    assert sum(weight.numel() for weight in theirs.parameters()) == 83_653_863
    assert difference(ours, theirs, dtype) <= allowed
    back = from_diffusers(theirs)
    assert back.settings == ours.settings
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(
    "config", [config for name, config in CONFIGS.items() if name != "published"], ids=lambda c: str(c.channels)
)
def test_every_configuration_both_ways(config):
    ours = randomised(ConvVAE(config))
    theirs = to_diffusers(ours)
    assert difference(ours, theirs) <= 1e-5
    back = from_diffusers(theirs)
    assert back.settings == ours.settings and difference(back, theirs) <= 1e-5


def test_the_library_saves_and_loads_a_converted_vae(tmp_path):
    ours = randomised(ConvVAE(SMALL))
    to_diffusers(ours, sample_size=48).save_pretrained(tmp_path)
    loaded = AutoencoderKL.from_pretrained(tmp_path)
    assert loaded.config.scaling_factor == 0.5 and loaded.config.sample_size == 48 and not loaded.config.force_upcast
    assert difference(ours, loaded) <= 1e-5
    assert from_diffusers(loaded).settings == ours.settings


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtype_and_mode_come_along(dtype):
    ours = ConvVAE(SMALL).to(dtype)
    theirs = to_diffusers(ours)
    assert theirs.dtype == dtype and theirs.training
    assert not to_diffusers(ours.eval()).training
    assert next(from_diffusers(theirs).parameters()).dtype == dtype


def test_both_have_weights_of_their_own():
    ours = ConvVAE(SMALL)
    theirs = to_diffusers(ours)
    with torch.no_grad():
        theirs.encoder.conv_in.weight.zero_()
    assert ours.encoder.conv_in.weight.abs().sum() > 0
    back = from_diffusers(theirs)
    with torch.no_grad():
        back.decoder.conv_in.weight.zero_()
    assert theirs.decoder.conv_in.weight.abs().sum() > 0
    assert all(weight.requires_grad for weight in back.parameters())


def test_several_heads_are_refused_in_a_sentence():
    with pytest.raises(CourseError, match="one head and this ConvVAE has 2: use DiffusersVAE"):
        to_diffusers(ConvVAE(replace(SMALL, heads=2)))


@pytest.mark.parametrize(
    "change, named",
    [
        ({"act_fn": "relu"}, "act_fn = relu; a ConvVAE can only be silu"),
        ({"in_channels": 1}, "in_channels = 1"),
        ({"out_channels": 1}, "out_channels = 1"),
        ({"use_post_quant_conv": False}, "use_post_quant_conv = False"),
        ({"down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")}, "down_block_types"),
        ({"up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D")}, "up_block_types"),
    ],
)
def test_what_a_conv_vae_has_not_is_refused_in_a_sentence(change, named):
    two = {"block_out_channels": (8, 16), "norm_num_groups": 4}
    two |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    with pytest.raises(CourseError, match=named):
        from_diffusers(AutoencoderKL(**two | change))


class TestAWrongPortIsCaught:
    """Networks that load the same weights without a word, and compute something else."""

    @pytest.fixture
    def pair(self) -> tuple[ConvVAE, AutoencoderKL]:
        ours = randomised(ConvVAE(SMALL))
        return copy.deepcopy(ours), to_diffusers(ours)

    def test_the_right_port_passes(self, pair):
        assert difference(*pair) <= 1e-5

    def test_symmetric_padding(self, pair, monkeypatch):
        monkeypatch.setattr(Downsample, "forward", lambda self, x: F.conv2d(x, self.conv.weight, self.conv.bias, 2, 1))
        assert difference(*pair) > 0.1

    def test_a_missing_activation(self, pair, monkeypatch):
        def forward(self, x):
            h = self.conv1(F.silu(self.norm1(x)))
            return self.shortcut(x) + self.conv2(self.norm2(h))

        monkeypatch.setattr(ResBlock, "forward", forward)
        assert difference(*pair) > 0.1

    def test_eps_1e_5(self, pair):
        """Too small an error for outputs to show reliably: the eps itself is compared."""
        ours, theirs = pair
        norms = [[m for m in model.modules() if isinstance(m, nn.GroupNorm)] for model in (ours, theirs)]
        assert len(norms[0]) == len(norms[1]) and {norm.eps for norm in norms[0] + norms[1]} == {1e-6}
        before = difference(ours, theirs)
        for norm in norms[0]:
            norm.eps = 1e-5
        assert difference(ours, theirs) > before

    def test_one_block_fewer(self, pair):
        ours, theirs = pair
        fewer = ConvVAE(replace(SMALL, blocks=1))
        with pytest.raises(RuntimeError, match="Unexpected key"):
            fewer.load_state_dict(ours.state_dict())
        ours.decoder.stages[0].blocks = ours.decoder.stages[0].blocks[:-1]
        assert difference(ours, theirs) > 0.1

    def test_two_blocks_in_the_other_order(self, pair):
        ours, theirs = pair
        ours.decoder.stages[0].blocks[1], ours.decoder.stages[0].blocks[2] = (
            ours.decoder.stages[0].blocks[2],
            ours.decoder.stages[0].blocks[1],
        )
        assert difference(ours, theirs) > 0.01
