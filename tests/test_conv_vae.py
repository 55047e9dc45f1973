"""ConvVAE: the published architecture, its shapes, its memory, and what it says to wrong images."""

import json

import pytest
import torch
from torch import nn

from helpers import CourseError
from helpers.blocks import AttentionBlock
from helpers.budget import generator_for
from helpers.conv_vae import ConvVAE, VAEConfig, image_loss, to_signed, to_unit
from helpers.data import Batch
from helpers.losses import gaussian_nll

TINY = VAEConfig((8, 16), latent_channels=3, blocks=1, groups=4)


@pytest.fixture(scope="module")
def published() -> ConvVAE:
    with torch.device("meta"):  # shapes without 335 MB
        return ConvVAE(VAEConfig.stable_diffusion())


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_stable_diffusion_has_the_published_size(published):
    assert count(published) == 83_653_863
    assert len(published.state_dict()) == 248
    assert count(published.encoder) + count(published.to_moments) == 34_163_592 + 72
    assert count(published.decoder) + count(published.from_latent) == 49_490_179 + 20
    assert published.settings.scaling_factor == 0.18215


def test_stable_diffusion_norms_have_32_groups_and_eps_1e_6(published):
    norms = [module for module in published.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) > 40 and all(norm.eps == 1e-6 and norm.num_groups == 32 for norm in norms)


def test_stable_diffusion_attends_in_the_middle_only_with_one_head(published):
    attention = {name: module for name, module in published.named_modules() if isinstance(module, AttentionBlock)}
    assert set(attention) == {"encoder.mid.attn", "decoder.mid.attn"}
    assert all(module.heads == 1 for module in attention.values())


def test_stable_diffusion_names(published):
    keys = set(published.state_dict())
    wanted = {"encoder.stages.1.blocks.0.shortcut.weight", "encoder.stages.2.resample.conv.weight", "to_moments.weight"}
    wanted |= {
        "decoder.stages.0.blocks.2.conv2.bias",
        "decoder.mid.attn.q.weight",
        "from_latent.bias",
        "encoder.norm_out.bias",
    }
    assert wanted <= keys
    assert "encoder.stages.3.resample.conv.weight" not in keys and "decoder.stages.3.resample.conv.weight" not in keys


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("latent", [4, 8, 16])
def test_course_models_shrink_non_square_images_and_bring_them_back(factor, latent):
    model = ConvVAE(VAEConfig.course(factor, latent))
    output = model(torch.rand(2, 3, 3 * factor, 5 * factor))
    assert output.z.shape == output.posterior.mean.shape == (2, latent, 3, 5)
    assert output.decoded.shape == (2, 3, 3 * factor, 5 * factor)
    assert count(model) < 6_000_000  # 12 MB in fp16
    assert all(width // model.settings.groups >= 4 for width in model.settings.channels)


def test_the_course_networks_are_narrow_at_full_resolution():
    assert VAEConfig.course(4) == VAEConfig((16, 32, 64), blocks=1, groups=4)
    assert VAEConfig.course(8, 16) == VAEConfig((8, 16, 32, 64), latent_channels=16, blocks=1, groups=2)


def test_course_refuses_another_factor():
    with pytest.raises(CourseError, match="factor is 16"):
        VAEConfig.course(16)


@pytest.mark.parametrize(("field", "value", "missing"), [("mid_attention", False, "attn"), ("quant_conv", False, "to_")])
def test_parts_that_can_be_left_out(field, value, missing):
    whole, less = ConvVAE(TINY), ConvVAE(TINY, **{field: value})
    assert any(missing in key for key in whole.state_dict())
    assert not any(missing in key for key in less.state_dict())
    assert less(torch.rand(1, 3, 4, 6)).decoded.shape == (1, 3, 4, 6)


def test_heads_and_groups_reach_the_blocks():
    model = ConvVAE(TINY, heads=4, groups=2)
    assert model.encoder.mid.attn.heads == model.decoder.mid.attn.heads == 4
    assert {module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm)} == {2}


def test_the_decoder_has_one_block_more_per_level():
    model = ConvVAE(VAEConfig((8, 16, 16), blocks=2, groups=4))
    assert [len(stage.blocks) for stage in model.encoder.stages] == [2, 2, 2]
    assert [len(stage.blocks) for stage in model.decoder.stages] == [3, 3, 3]


def test_a_model_is_built_again_from_its_config():
    model = ConvVAE(TINY, scaling_factor=0.5)
    again = ConvVAE(**json.loads(json.dumps(model.config)))
    assert again.settings == model.settings and again.settings.channels == (8, 16)


@pytest.mark.parametrize(
    ("size", "works"),
    [
        ((30, 32), "a height of 24 or 32 and a width of 32 would"),
        ((32, 33), "a height of 32 and a width of 32 or 40 would"),
        ((5, 9), "a height of 8 and a width of 8 or 16 would"),
    ],
)
def test_sizes_that_do_not_divide_are_named_with_those_that_would(size, works):
    with pytest.raises(CourseError, match=f"does not divide by 8: {works}"):
        ConvVAE(VAEConfig((8, 8, 8, 8), groups=2)).encode(torch.rand(1, 3, *size))


def test_encoding_never_samples_and_never_scales():
    model, x = ConvVAE(TINY, scaling_factor=0.1), torch.rand(2, 3, 4, 6)
    assert torch.equal(model.encode(x).mean, model.encode(x).mean)
    other = ConvVAE(TINY, scaling_factor=9.0)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.encode(x).mean, other.encode(x).mean)
    z = model.encode(x).mode()
    assert torch.equal(model.decode(z), other.decode(z))


def test_forward_decodes_the_sample_it_returns():
    model, x = ConvVAE(TINY).eval(), torch.rand(2, 3, 4, 6)
    first, second = (model(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.z, second.z)
    assert not torch.equal(first.z, first.posterior.mean)
    torch.testing.assert_close(first.decoded, model.decode(first.z))


def test_recompute_changes_memory_and_not_gradients():
    x, kept = torch.rand(2, 3, 8, 8), {}
    model = ConvVAE(TINY)
    gradients = {}
    for on in (False, True):
        model.recompute(on).zero_grad()
        saved: dict[int, int] = {}

        def pack(tensor, saved=saved):
            saved[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(x, torch.Generator().manual_seed(0)).decoded.square().sum()
        loss.backward()
        kept[on], gradients[on] = sum(saved.values()), [weight.grad.clone() for weight in model.parameters()]
    assert kept[True] < 0.7 * kept[False]
    for plain, recomputed in zip(gradients[False], gradients[True], strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize("quant_conv", [True, False])
def test_fresh_posteriors_are_narrow_and_their_means_are_not_moved(quant_conv):
    posterior = ConvVAE(TINY, quant_conv=quant_conv).encode(torch.rand(2, 3, 8, 12) * 2 - 1)
    assert 0.01 < posterior.std.min() < posterior.std.max() < 0.2
    assert posterior.mean.abs().max() < 3


def test_ranges():
    pixels = torch.tensor([0.0, 0.25, 1.0])
    assert to_signed(pixels).tolist() == [-1.0, -0.5, 1.0]
    assert torch.equal(to_unit(to_signed(pixels)), pixels)


def test_image_loss_measures_errors_of_unit_pixels():
    """A model that returns its input shifted by 0.2 in [-1, 1] is wrong by 0.1 in [0, 1]."""
    batch = Batch(torch.rand(3, 3, 4, 6), None)

    class Shifted(ConvVAE):
        def decode(self, z):
            return to_signed(batch.images) + 0.2

    terms = image_loss(Shifted(TINY), batch, generator_for(0), nll=gaussian_nll, beta=0.5)
    expected = 0.5 * (0.1**2 * 72 + 72 * torch.log(torch.tensor(2 * torch.pi)))
    torch.testing.assert_close(terms["reconstruction"], expected.expand(3))
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.5 * terms["kl"])
