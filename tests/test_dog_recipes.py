"""The baselines of the dog benchmarks are what their descriptions say, and the variants differ in one thing each."""

import pytest
import torch
from torch import nn

from helpers.blocks import AttentionBlock, ResBlock
from helpers.conv_vae import ConvVAE, VAEConfig
from helpers.data import ImageSet, load_dogs
from tests.benchmarks import bench_11_dog_parts as parts
from tests.benchmarks import bench_12_dog_steps as steps
from tests.benchmarks.dog_recipes import ChapterVAE, OneByOne, OriginalVAE, measure_published
from tests.small_data import write_photos

TINY = VAEConfig((8, 8), blocks=1, groups=2)


@pytest.fixture
def pictures() -> ImageSet:
    images = torch.randint(0, 256, (5, 3, 16, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageSet(images, None, "noise")


@pytest.fixture
def original() -> OriginalVAE:
    with torch.device("meta"):
        model = OriginalVAE()
    torch.manual_seed(0)
    model.vae = ConvVAE(TINY)  # the same recipe around a small network
    return model


def test_the_chapters_network_runs_once_its_widths_fit(pictures):
    model = ChapterVAE()
    assert 3.3e6 < sum(weight.numel() for weight in model.parameters()) < 3.6e6
    x = pictures.pixels()
    mean, logvar = model.posterior(x)
    assert mean.shape == logvar.shape == (5, 4, 2, 3)
    assert model.decoder(model.latent(mean)).shape == x.shape
    assert {module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm)} == {32}


def test_the_chapters_loss_is_mean_plus_mean(pictures):
    model, x = ChapterVAE(), pictures.pixels()
    torch.manual_seed(3)
    loss = model.loss(x)
    mean, logvar = model.posterior(x)
    torch.manual_seed(3)
    decoded = model.decoder(mean + torch.randn_like(mean) * (logvar / 2).exp())
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(loss, (decoded - x).square().mean() + kl)


def test_the_original_network_is_stable_diffusions_size():
    with torch.device("meta"):
        model = OriginalVAE()
    assert sum(weight.numel() for weight in model.parameters()) == 83_653_863


def test_the_originals_kl_is_of_two_channels_of_the_scaled_sample(original, pictures):
    x = pictures.pixels() * 2 - 1
    torch.manual_seed(3)
    loss = original.loss(x)
    mean, logvar = original.posterior(x)
    torch.manual_seed(3)
    z = 0.18215 * (mean + torch.randn_like(mean) * (logvar / 2).exp())
    wrong = 0.5 * (z[:, :2] ** 2 + z[:, 2:].exp() - 1 - z[:, 2:]).sum()
    error = (original.vae.decode(z / 0.18215) - x).square().mean()
    torch.testing.assert_close(loss, error + 0.00025 * wrong)


def test_the_original_starts_as_published_without_zeros_and_narrow_noise():
    model = OriginalVAE(TINY)
    blocks = [module for module in model.modules() if isinstance(module, ResBlock)]
    assert blocks and all(bool((block.conv2.weight != 0).any()) for block in blocks)
    assert model.vae.to_moments.bias.abs().max() < 1


def test_published_models_are_measured_from_their_means(original, pictures):
    decoded, found = measure_published(original, pictures)
    expected = original.vae.decode(original.vae.encode(pictures.pixels() * 2 - 1).mean)
    torch.testing.assert_close(decoded, ((expected + 1) / 2).clamp(0, 1))
    posterior = original.vae.encode(pictures.pixels() * 2 - 1)
    assert found["kl"] == pytest.approx(posterior.kl().mean().item(), rel=1e-5)
    spread = posterior.mean.std((0, 2, 3))
    assert found["noise"] == pytest.approx((posterior.std.mean((0, 2, 3)) / spread).mean().item(), rel=1e-5)


def test_one_by_one_is_in_minus_one_to_one(pictures):
    dataset = OneByOne(pictures)
    assert len(dataset) == 5
    torch.testing.assert_close(dataset[3], pictures.pixels()[3] * 2 - 1)


def test_one_by_one_opens_the_files_of_the_dogs(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    write_photos(tmp_path / "dogs", 30, size=(20, 30))
    dogs = load_dogs(16)
    dataset = OneByOne(dogs)
    assert len(dataset) == len(dogs)
    for i in range(len(dogs)):
        torch.testing.assert_close(dataset[i], dogs.pixels()[i] * 2 - 1, atol=0.02, rtol=0)  # a grey level or two


def test_each_variant_lacks_one_thing():
    x = torch.rand(2, 8, 6, 10)
    model = parts.without_norms(ConvVAE(TINY))
    assert not [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    plain = ConvVAE(TINY)
    block = next(module for module in parts.without_shortcuts(plain).modules() if isinstance(module, ResBlock))
    h = block.conv2(nn.functional.silu(block.norm2(block.conv1(nn.functional.silu(block.norm1(x))))))
    torch.testing.assert_close(block(x), h)
    assert bool((h != 0).any())
    scaled = parts.with_scales(ConvVAE(TINY))
    block = next(module for module in scaled.modules() if isinstance(module, ResBlock))
    before = block(x)
    with torch.no_grad():
        block.conv2.scale.zero_()
    assert torch.equal(block(x), x) and before.shape == x.shape
    assert block.conv2.scale.requires_grad


def test_attention_written_out_gives_the_same():
    torch.manual_seed(0)
    block, x = AttentionBlock(8, heads=2, groups=4), torch.rand(2, 8, 3, 5)
    expected = block(x)
    block.__class__ = steps.WrittenOut
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("kind", steps.LOOPS)
def test_the_loops_train_for_the_time_they_are_given(kind, pictures):
    model = ConvVAE(TINY)
    before = [weight.clone() for weight in model.parameters()]
    assert steps.LOOPS[kind](model, pictures, 2, 0.2) >= 2
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
