"""ConvVAE: the published architecture, its pixels, its memory, and what it says to wrong sizes."""

import json
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import CourseError
from helpers.data.image_set import ImageSet
from helpers.metrics.images import BlockPCA
from helpers.models.blocks import AttentionBlock
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss, photo_config
from helpers.models.losses import gaussian_nll
from helpers.rng import generator_for

TINY = VAEConfig((8, 16), latent_channels=3, blocks=1, groups=4)


def photos(count: int = 2, height: int = 4, width: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def count(*modules: nn.Module) -> int:
    return sum(weight.numel() for module in modules for weight in module.parameters())


# --- the published architecture ---


@pytest.fixture(scope="module")
def published() -> ConvVAE:
    with torch.device("meta"):  # shapes without 335 MB
        return ConvVAE(VAEConfig.stable_diffusion())


def test_stable_diffusion_has_the_published_size(published):
    assert count(published) == 83_653_863
    assert len(published.state_dict()) == 248
    assert count(published.encoder, published.to_moments) == 34_163_592 + 72


def test_stable_diffusion_has_the_published_norms_and_attention(published):
    norms = [module for module in published.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) > 40
    assert all(norm.eps == 1e-6 and norm.num_groups == 32 for norm in norms)
    heads = {n: m.heads for n, m in published.named_modules() if isinstance(m, AttentionBlock)}
    assert heads == {"encoder.mid.attn": 1, "decoder.mid.attn": 1}


def test_weight_names_say_where_a_weight_is(published):
    keys = set(published.state_dict())
    assert keys >= {
        "encoder.stages.1.blocks.0.shortcut.weight",
        "encoder.stages.2.resample.conv.weight",
        "encoder.norm_out.bias",
        "to_moments.weight",
        "from_latent.bias",
        "decoder.mid.attn.q.weight",
        "decoder.stages.0.blocks.2.conv2.bias",
    }
    last = {f"{part}.stages.3.resample.conv.weight" for part in ("encoder", "decoder")}
    assert not keys & last  # the last level keeps its resolution


# --- configurations ---


@pytest.mark.parametrize(("factor", "latent"), [(4, 4), (8, 16)])
def test_course_models_shrink_non_square_images_and_bring_them_back(factor, latent):
    model = ConvVAE(VAEConfig.course(factor, latent))
    output = model(photos(2, 3 * factor, 5 * factor))
    assert output.z.shape == output.posterior.mean.shape == (2, latent, 3, 5)
    assert output.decoded.shape == (2, 3, 3 * factor, 5 * factor)
    assert count(model) < 6_000_000  # 12 MB in fp16
    assert all(width // model.config.groups >= 4 for width in model.config.channels)


@pytest.mark.parametrize("make", [VAEConfig.course, photo_config])
def test_configurations_refuse_another_factor(make):
    with pytest.raises(CourseError, match="factor is 16"):
        make(16)


# --- patches and the linear shortcut ---


@pytest.mark.parametrize(("factor", "latent"), [(4, 4), (8, 16)])
def test_with_patches_non_square_images_come_back(factor, latent):
    config = photo_config(factor, latent)
    model = ConvVAE(config)
    output = model(photos(2, 3 * factor, 5 * factor))
    assert config.factor == factor
    assert output.z.shape == output.posterior.mean.shape == (2, latent, 3, 5)
    assert output.decoded.shape == (2, 3, 3 * factor, 5 * factor)
    assert count(model) < 6_000_000
    assert all(width // config.groups >= 4 for width in config.channels)


def test_a_patch_sees_itself_alone_until_blocks_mix_it():
    model = ConvVAE(replace(TINY, patch=2))
    x = photos(1, 8, 12)
    changed = x.clone()
    changed[..., 2:4, 6:8] += 0.5  # the patch in row 1, column 3
    conv_in = model.encoder.conv_in
    moved = (conv_in(changed) - conv_in(x)).abs().sum(1)[0] > 0
    assert moved.nonzero().tolist() == [[1, 3]]


def test_a_fresh_network_with_shortcut_decodes_as_block_pca():
    train = ImageSet(torch.randint(256, (30, 3, 8, 12), dtype=torch.uint8), None, "noise", ())
    pca = BlockPCA(train, 4, 5)
    model = ConvVAE(photo_config(4, 5))
    model.linear.start_as(pca)
    x = photos(3, 8, 12)
    with torch.no_grad():
        code = model.linear.encode(2 * x - 1)
        decoded = model.decode(code).clamp(0, 1)
    # the PCA has a mean for each pixel of a block, a transposed convolution one for each colour
    blocks = F.unfold(pca.reconstruct(x) - decoded, 4, stride=4)
    spread = blocks.unflatten(1, (3, 16)).mean(2)
    assert spread.abs().max() < 0.02 and blocks.abs().max() < 0.1
    known = model.linear.encode(2 * train.pixels() - 1)
    torch.testing.assert_close(known.var((0, 2, 3)), torch.ones(5), rtol=0.05, atol=0)
    torch.testing.assert_close(known.mean((0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-4)
    variances = pca.variances.flip(0)
    assert variances[0] == variances.max(), "the largest axis comes first"


def test_the_deep_network_begins_as_a_correction_and_learns():
    model = ConvVAE(photo_config(4))
    x = photos(2, 8, 12)
    around = model.linear.encode(2 * x - 1)
    assert (model.encode(x).mean - around).std() < 0.2 * ConvVAE(TINY).encode(x).mean.std() + 0.1
    z = torch.randn(2, 4, 2, 3)
    torch.testing.assert_close(2 * model.decode(z) - 1, model.linear.decode(z))
    image_loss(model, {"images": x}, generator_for("noise"))["loss"].sum().backward()
    assert model.decoder.conv_out.weight.grad.abs().sum() > 0
    assert model.encoder.conv_in.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("field", "missing"), [("mid_attention", "attn"), ("quant_conv", "to_")])
def test_parts_that_can_be_left_out(field, missing):
    whole, less = ConvVAE(TINY), ConvVAE(TINY, **{field: False})
    assert any(missing in key for key in whole.state_dict())
    assert not any(missing in key for key in less.state_dict())
    assert less(photos()).decoded.shape == (2, 3, 4, 6)


def test_heads_groups_and_blocks_reach_their_places():
    model = ConvVAE(VAEConfig((8, 16, 16), blocks=2, groups=2, heads=4))
    assert model.encoder.mid.attn.heads == model.decoder.mid.attn.heads == 4
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {2}
    assert [len(stage.blocks) for stage in model.encoder.stages] == [2, 2, 2]
    assert [len(stage.blocks) for stage in model.decoder.stages] == [3, 3, 3]


def test_a_model_is_built_again_from_its_config():
    model = ConvVAE(TINY, scaling_factor=0.5)
    again = ConvVAE(**json.loads(json.dumps(asdict(model.config))))
    assert again.config == model.config
    assert again.config.channels == (8, 16) and again.config.scaling_factor == 0.5


@pytest.mark.parametrize(
    ("size", "works"),
    [
        ((30, 32), "a height of 24 or 32 and a width of 32 would"),
        ((32, 33), "a height of 32 and a width of 32 or 40 would"),
        ((5, 9), "a height of 8 and a width of 8 or 16 would"),
    ],
)
def test_sizes_that_do_not_divide_are_named_with_those_that_would(size, works):
    model = ConvVAE(VAEConfig((8, 8, 8, 8), groups=2))
    with pytest.raises(CourseError, match=f"does not divide by 8: {works}"):
        model.encode(photos(1, *size))


# --- pixels, latents, losses ---


class Recorder(nn.Module):
    """Keeps what it is given and answers with `answer`."""

    def __init__(self, answer: torch.Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.given = x
        return self.answer


def test_pixels_are_0_to_1_outside_and_minus_1_to_1_inside():
    model = ConvVAE(TINY, quant_conv=False)
    black_grey_white = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)

    model.encoder = Recorder(torch.zeros(1, 6, 2, 3))
    model.encode(black_grey_white.expand(1, 3, 4, 3).repeat(1, 1, 1, 2))
    assert model.encoder.given[0, 0, 0].tolist() == [-1.0, 0.0, 1.0, -1.0, 0.0, 1.0]

    model.decoder = Recorder(torch.tensor([-1.0, 0.0, 1.0, 1.5]).expand(1, 3, 2, 4))
    decoded = model.decode(torch.zeros(1, 3, 1, 2))
    assert decoded[0, 0, 0].tolist() == [0.0, 0.5, 1.0, 1.25]  # not clamped


@pytest.mark.parametrize("quant_conv", [True, False])
def test_encode_and_decode_are_the_inner_networks(quant_conv):
    model, x = ConvVAE(TINY, quant_conv=quant_conv), photos()
    before = x.clone()
    moments = model.to_moments(model.encoder((x - 0.5) / 0.5))
    posterior = model.encode(x)
    torch.testing.assert_close(posterior.mean, moments[:, :3])
    torch.testing.assert_close(posterior.logvar, moments[:, 3:])
    assert torch.equal(x, before)
    inner = model.decoder(model.from_latent(posterior.mean))
    torch.testing.assert_close(model.decode(posterior.mean), inner / 2 + 0.5)


def test_pixels_of_half_precision_are_float32_and_rounded_once():
    model, z = ConvVAE(TINY), torch.randn(2, 3, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        decoded = model.decode(z)
        inner = model.decoder(model.from_latent(z))
    assert inner.dtype == torch.bfloat16 and decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, inner.float() / 2 + 0.5)


def test_encoding_never_samples_and_never_scales():
    model, other = ConvVAE(TINY, scaling_factor=0.1), ConvVAE(TINY, scaling_factor=9.0)
    other.load_state_dict(model.state_dict())
    z = model.encode(photos()).mode()
    assert torch.equal(z, other.encode(photos()).mode())
    assert torch.equal(model.decode(z), other.decode(z))


def test_forward_decodes_the_sample_it_returns():
    model = ConvVAE(TINY).eval()
    output = model(photos(), generator_for(3))
    assert torch.equal(output.z, output.posterior.sample(generator_for(3)))
    assert not torch.equal(output.z, output.posterior.mean)
    torch.testing.assert_close(output.decoded, model.decode(output.z))


@pytest.mark.parametrize("quant_conv", [True, False])
def test_fresh_posteriors_are_narrow_and_their_means_are_not_moved(quant_conv):
    posterior = ConvVAE(TINY, quant_conv=quant_conv).encode(photos(2, 8, 12))
    assert 0.01 < posterior.std.min() < posterior.std.max() < 0.2
    assert posterior.mean.abs().max() < 3


def test_gradient_checkpointing_changes_memory_and_not_gradients():
    model, x = ConvVAE(TINY), photos(2, 8, 8)
    memory, gradients = {}, {}
    for on in (False, True):
        model.set_gradient_checkpointing(on).zero_grad()
        saved: dict[int, int] = {}

        def pack(tensor, saved=saved):
            saved[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(x, generator_for(0)).decoded.square().sum()
        loss.backward()
        memory[on] = sum(saved.values())
        gradients[on] = [weight.grad.clone() for weight in model.parameters()]
    assert memory[True] < 0.7 * memory[False]
    for plain, recomputed in zip(gradients[False], gradients[True], strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_image_loss_measures_errors_of_pixels_between_0_and_1():
    """A model that returns its input, 0.1 brighter."""
    batch = {"images": photos(3)}

    class Brighter(ConvVAE):
        def decode(self, z):
            return batch["images"] + 0.1

    terms = image_loss(Brighter(TINY), batch, generator_for(0), nll=gaussian_nll, beta=0.5)
    expected = 0.5 * (0.1**2 * 72 + 72 * torch.log(torch.tensor(2 * torch.pi)))  # 72 values each
    torch.testing.assert_close(terms["reconstruction"], expected.expand(3))
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.5 * terms["kl"])
