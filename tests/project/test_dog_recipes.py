"""The baselines of the dog benchmarks are what their descriptions say.

And the variants of the course's network differ in one thing each.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helpers.data.datasets import load_dogs
from helpers.data.image_set import ImageSet
from helpers.models.blocks import AttentionBlock, ResBlock
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.models.losses import calibrated_gaussian_nll
from helpers.training.loop import fit
from tests.benchmarks import bench_dog_parts as parts
from tests.benchmarks import bench_dog_steps as steps
from tests.benchmarks.course_recipes import SmallVAE
from tests.benchmarks.dog_recipes import ChapterVAE, OneByOne, OriginalVAE, measure_published
from tests.data.small_data import write_photos

TINY = VAEConfig((8, 8), blocks=1, groups=2)


@pytest.fixture(scope="module")
def pictures() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 16, 24), generator=generator, dtype=torch.uint8)
    return ImageSet(images, None, "noise")


@pytest.fixture(scope="module")
def x(pictures) -> torch.Tensor:
    """The pictures as the published networks take them, in [-1, 1]."""
    return pictures.pixels() * 2 - 1


@pytest.fixture(scope="module")
def chapter() -> ChapterVAE:
    return ChapterVAE()


@pytest.fixture
def original() -> OriginalVAE:
    """The same recipe around a small network."""
    torch.manual_seed(0)
    return OriginalVAE(TINY)


def blocks_of(model: nn.Module) -> list[ResBlock]:
    return [module for module in model.modules() if isinstance(module, ResBlock)]


def test_the_chapters_network_runs_once_its_widths_fit(chapter, x):
    assert 3.3e6 < sum(weight.numel() for weight in chapter.parameters()) < 3.6e6
    mean, logvar = chapter.posterior(x)
    assert mean.shape == logvar.shape == (5, 4, 2, 3)
    assert chapter.decoder(chapter.latent(mean)).shape == x.shape
    norms = [module for module in chapter.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {32}


def test_the_chapters_loss_is_mean_plus_mean(chapter, x):
    torch.manual_seed(3)
    loss = chapter.loss(x)
    mean, logvar = chapter.posterior(x)
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    torch.manual_seed(3)
    decoded = chapter.decoder(mean + torch.randn_like(mean) * (logvar / 2).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(loss, (decoded - x).square().mean() + kl)


def test_the_original_network_is_stable_diffusions_size():
    with torch.device("meta"):
        model = OriginalVAE()
    assert sum(weight.numel() for weight in model.parameters()) == 83_653_863


def test_the_originals_kl_is_of_two_channels_of_the_scaled_sample(original, x):
    torch.manual_seed(3)
    loss = original.loss(x)
    posterior = original.vae.encode((x + 1) / 2)
    torch.manual_seed(3)
    z = 0.18215 * (posterior.mean + torch.randn_like(posterior.mean) * posterior.std)
    wrong = 0.5 * (z[:, :2] ** 2 + z[:, 2:].exp() - 1 - z[:, 2:]).sum()
    decoded = 2 * original.vae.decode(z / 0.18215) - 1
    torch.testing.assert_close(loss, (decoded - x).square().mean() + 0.00025 * wrong)


def test_the_original_starts_as_published_without_zeros_and_narrow_noise(original):
    blocks = blocks_of(original)
    assert blocks and all(bool((block.conv2.weight != 0).any()) for block in blocks)
    assert original.vae.to_moments.bias.abs().max() < 1


def test_published_models_are_measured_from_their_means(original, pictures):
    decoded, found = measure_published(original, pictures)
    posterior = original.vae.encode(pictures.pixels())
    torch.testing.assert_close(decoded, original.vae.decode(posterior.mean).clamp(0, 1))
    assert found["kl"] == pytest.approx(posterior.kl().mean().item(), rel=1e-5)
    noise = posterior.std.mean((0, 2, 3)) / posterior.mean.std((0, 2, 3))
    assert found["noise"] == pytest.approx(noise.mean().item(), rel=1e-5)


def test_one_by_one_is_in_minus_one_to_one(pictures, x):
    dataset = OneByOne(pictures)
    assert len(dataset) == 5
    torch.testing.assert_close(dataset[3], x[3])


def test_one_by_one_opens_the_files_of_the_dogs(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    write_photos(tmp_path / "dogs", 30, size=(20, 30))
    dogs = load_dogs(16)
    dataset = OneByOne(dogs)
    assert len(dataset) == len(dogs)
    for image, wanted in zip(dataset, dogs.pixels() * 2 - 1, strict=False):
        torch.testing.assert_close(image, wanted, atol=0.02, rtol=0)  # a grey level or two


def test_the_small_network_is_a_vae_of_unit_pixels(pictures):
    images = pictures.pixels()
    for factor in (4, 8):
        model = SmallVAE(factor)
        out = model(images, torch.Generator().manual_seed(0))
        assert out.decoded.shape == images.shape
        assert out.z.shape == (5, 4, 16 // factor, 24 // factor)
        assert model.config.factor == factor
        assert out.posterior.std.mean() < 0.1
        torch.testing.assert_close(model.decode(out.z), (model.decoder(out.z) + 1) / 2)


def test_without_norms_has_none_and_without_shortcuts_adds_nothing():
    model = parts.without_norms(ConvVAE(TINY))
    assert not [module for module in model.modules() if isinstance(module, nn.GroupNorm)]

    block = blocks_of(parts.without_shortcuts(ConvVAE(TINY)))[0]
    features = torch.rand(2, 8, 6, 10)
    h = block.conv1(nn.functional.silu(block.norm1(features)))
    h = block.conv2(nn.functional.silu(block.norm2(h)))
    torch.testing.assert_close(block(features), h)
    assert bool((h != 0).any())


def test_a_scale_of_zero_leaves_the_shortcut():
    block = blocks_of(parts.with_scales(ConvVAE(TINY)))[0]
    features = torch.rand(2, 8, 6, 10)
    assert block.conv2.scale.requires_grad
    block.conv2.conv.reset_parameters()
    assert not torch.equal(block(features), features)
    with torch.no_grad():
        block.conv2.scale.zero_()
    assert torch.equal(block(features), features)


def test_attention_written_out_gives_the_same():
    torch.manual_seed(0)
    block = AttentionBlock(8, heads=2, groups=4)
    features = torch.rand(2, 8, 3, 5)
    expected = block(features)
    block.__class__ = steps.WrittenOut
    torch.testing.assert_close(block(features), expected)


def weights_of(model: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize("kind", [kind for kind in steps.LOOPS if kind != "plain"])
def test_our_loop_trains_and_counts_its_images(kind, pictures, monkeypatch):
    def two_steps(*args, minutes, **settings):
        assert minutes == 3 / 60
        fit(*args, steps=2, **settings)

    monkeypatch.setattr(steps, "fit", two_steps)
    model = ConvVAE(TINY)
    before = weights_of(model)
    assert steps.LOOPS[kind](model, pictures, 2, 3) == 4
    assert not torch.equal(weights_of(model), before)


def test_the_plain_loop_trains_until_the_time_is_over(pictures, monkeypatch):
    clock = iter([0.0, 1.0, 4.0])  # the start, and after each step
    monkeypatch.setattr(steps, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    model = ConvVAE(TINY)
    before = weights_of(model)
    assert steps.LOOPS["plain"](model, pictures, 2, 3) == 4
    assert not torch.equal(weights_of(model), before)
    assert all(isinstance(m, steps.WrittenOut) for m in model.modules() if hasattr(m, "heads"))


def test_the_plain_loop_has_the_loss_of_the_course(monkeypatch, pictures):
    seen = []

    def spy(decoded, images):
        seen.append(images)
        return calibrated_gaussian_nll(decoded, images)

    monkeypatch.setattr(steps, "calibrated_gaussian_nll", spy)
    steps.plain_loop(ConvVAE(TINY), pictures, 5, 0.0)
    order = seen[0].flatten(1).sum(1).argsort()
    wanted = pictures.pixels().flatten(1).sum(1).argsort()
    torch.testing.assert_close(seen[0][order], pictures.pixels()[wanted])
