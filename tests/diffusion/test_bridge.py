"""The bridge to diffusers: equal to AutoencoderKL in every number, and what a wrong port shows."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from helpers import CourseError
from helpers.diffusers_bridge import from_diffusers, to_diffusers
from helpers.models.blocks import Downsample, ResBlock
from helpers.models.conv_vae import ConvVAE, VAEConfig
from tests.diffusion.small_models import CONFIGS, pictures, randomised

SMALL = VAEConfig((8, 16, 32), latent_channels=3, blocks=2, groups=4, scaling_factor=0.5)


@torch.no_grad()
def difference(vae: ConvVAE, autoencoder: AutoencoderKL, size: tuple = (64, 96)) -> float:
    """The largest relative difference of means, log-variances and decoded images.

    Each is given the same picture in its own range: [0, 1] and [-1, 1].
    """
    x = pictures(1, *size).to(autoencoder.dtype)
    ours = vae.encode((x + 1) / 2)
    theirs = autoencoder.encode(x).latent_dist
    decoded = 2 * vae.decode(theirs.mean) - 1, autoencoder.decode(theirs.mean).sample
    pairs = [(ours.mean, theirs.mean), (ours.logvar, theirs.logvar), decoded]
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


@pytest.mark.slow
def test_stable_diffusions_own_configuration_both_ways():
    """In float64, where nothing but a wrong port can make a difference."""
    with torch.device("meta"):
        ours = ConvVAE(VAEConfig.stable_diffusion())
    ours = randomised(ours.to_empty(device="cpu").double())
    theirs = to_diffusers(ours)
    assert sum(weight.numel() for weight in theirs.parameters()) == 83_653_863
    assert difference(ours, theirs, (16, 24)) <= 1e-9
    back = from_diffusers(theirs)
    assert back.config == ours.config
    weights = back.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "published"])
def test_every_configuration_both_ways(name):
    ours = randomised(ConvVAE(CONFIGS[name]))
    theirs = to_diffusers(ours)
    assert difference(ours, theirs) <= 1e-5
    back = from_diffusers(theirs)
    assert back.config == ours.config and difference(back, theirs) <= 1e-5


def test_the_library_saves_and_loads_a_converted_vae(tmp_path):
    ours = randomised(ConvVAE(SMALL))
    to_diffusers(ours, sample_size=48).save_pretrained(tmp_path)
    loaded = AutoencoderKL.from_pretrained(tmp_path)
    config = loaded.config
    assert (config.scaling_factor, config.sample_size, config.force_upcast) == (0.5, 48, False)
    assert difference(ours, loaded) <= 1e-5
    assert from_diffusers(loaded).config == replace(ours.config, pipeline={"sample_size": 48})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_dtype_and_mode_come_along(dtype):
    ours = ConvVAE(SMALL).to(dtype)
    theirs = to_diffusers(ours)
    assert theirs.dtype == dtype and theirs.training
    assert not to_diffusers(ours.eval()).training
    assert next(from_diffusers(theirs).parameters()).dtype == dtype


def test_both_have_weights_of_their_own():
    ours = ConvVAE(SMALL)
    theirs = to_diffusers(ours)
    back = from_diffusers(theirs)
    with torch.no_grad():
        theirs.encoder.conv_in.weight.zero_()
        back.decoder.conv_in.weight.zero_()
    assert ours.encoder.conv_in.weight.abs().sum() > 0
    assert theirs.decoder.conv_in.weight.abs().sum() > 0
    assert all(weight.requires_grad for weight in back.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 2}, "attends with one head and this ConvVAE has 2: use DiffusersVAE"),
        ({"patch": 2}, "has no place for patches of pixels, and this ConvVAE has that: use Diff"),
        ({"linear_shortcut": True}, "no place for a linear shortcut, and this ConvVAE has that"),
    ],
)
def test_what_autoencoder_kl_has_not_is_refused_in_a_sentence(change, words):
    with pytest.raises(CourseError, match=words):
        to_diffusers(ConvVAE(replace(SMALL, **change)))


@pytest.mark.parametrize(
    "change, named",
    [
        ({"act_fn": "relu"}, "act_fn = relu; a ConvVAE can only be silu"),
        ({"in_channels": 1}, "in_channels = 1"),
        ({"out_channels": 1}, "out_channels = 1"),
        ({"use_post_quant_conv": False}, "use_post_quant_conv = False"),
        (
            {"down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")},
            "down_block_types",
        ),
        ({"up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D")}, "up_block_types"),
    ],
)
def test_what_a_conv_vae_has_not_is_refused_in_a_sentence(change, named):
    two = {
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
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

    def test_pixels_of_the_other_range(self, pair, monkeypatch):
        ours, theirs = pair
        encode = ours.encode
        monkeypatch.setattr(ours, "encode", lambda x: encode(2 * x - 1))
        assert difference(ours, theirs) > 0.1

    def test_symmetric_padding(self, pair, monkeypatch):
        def forward(self, x):
            return F.conv2d(x, self.conv.weight, self.conv.bias, stride=2, padding=1)

        monkeypatch.setattr(Downsample, "forward", forward)
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
        norms = [
            [m for m in model.modules() if isinstance(m, nn.GroupNorm)] for model in (ours, theirs)
        ]
        assert len(norms[0]) == len(norms[1])
        assert {norm.eps for norm in norms[0] + norms[1]} == {1e-6}
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
        first, second, third = ours.decoder.stages[0].blocks
        ours.decoder.stages[0].blocks = nn.ModuleList([first, third, second])
        assert difference(ours, theirs) > 0.01
