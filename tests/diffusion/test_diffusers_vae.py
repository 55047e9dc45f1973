"""DiffusersVAE behaves as the library's own models do."""

import inspect
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import nn
from torch.utils.checkpoint import checkpoint

from helpers import CourseError
from helpers.diffusers_bridge import DiffusersVAE, from_diffusers, to_diffusers
from helpers.models.conv_vae import ConvVAE
from helpers.models.distributions import DiagonalGaussian
from tests.diffusion.small_models import PATCHES, TWO_HEADS, one_head, pictures, randomised


@pytest.fixture(params=[TWO_HEADS, PATCHES], ids=["two heads", "patches and linear shortcut"])
def network(request) -> ConvVAE:
    return randomised(ConvVAE(request.param))


@pytest.fixture
def vae(network) -> DiffusersVAE:
    return DiffusersVAE.of(network, sample_size=32)


class Mosaic(DiffusersVAE):
    """Not Stable Diffusion's architecture at all: pixels of 2×2 blocks as channels."""

    def build(self):
        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.mix = nn.Conv2d(12, 24, 1)
                self.back = nn.Conv2d(12, 12, 1)

            def encode(self, x):
                moments = self.mix(F.pixel_unshuffle(x, 2))
                return DiagonalGaussian(*moments.chunk(2, dim=1))

            def decode(self, z):
                return F.pixel_shuffle(self.back(z), 2)

        return Network()


def test_a_patch_that_is_no_power_of_two_is_refused():
    with pytest.raises(CourseError, match="a patch of 3 pixels is no power of 2"):
        DiffusersVAE.of(ConvVAE(replace(PATCHES, patch=3)), sample_size=96)


class TestLikeTheLibrarysModels:
    def test_it_computes_what_its_network_computes_on_pixels_of_0_to_1(self, vae, network):
        x = pictures()
        found = vae.encode(x).latent_dist
        expected = network.encode((x + 1) / 2)
        assert torch.equal(found.mean, expected.mean)
        assert torch.equal(found.logvar, expected.logvar)
        assert torch.equal(vae.decode(found.mean).sample, 2 * network.decode(found.mean) - 1)

    def test_outputs_are_the_librarys_and_tuples_on_request(self, vae):
        encoded = vae.encode(pictures())
        decoded = vae.decode(torch.randn(1, 4, 8, 12))
        assert isinstance(encoded, AutoencoderKLOutput)
        assert isinstance(encoded.latent_dist, DiagonalGaussianDistribution)
        assert isinstance(decoded, DecoderOutput) and isinstance(vae(pictures()), DecoderOutput)
        (posterior,) = vae.encode(pictures(), return_dict=False)
        assert torch.equal(posterior.mean, encoded.latent_dist.mean)
        (again,) = vae(pictures(), return_dict=False)
        assert torch.equal(again, vae(pictures()).sample)

    @pytest.mark.parametrize("name", ["encode", "decode", "forward"])
    def test_methods_take_what_autoencoder_kl_takes(self, name):
        own, theirs = (
            inspect.signature(getattr(kind, name)).parameters
            for kind in (DiffusersVAE, AutoencoderKL)
        )
        assert list(own) == list(theirs)
        assert [p.default for p in own.values()] == [p.default for p in theirs.values()]

    def test_it_is_deterministic_but_for_the_posterior(self, vae):
        def draw(seed: int) -> torch.Tensor:
            generator = torch.Generator().manual_seed(seed)
            return vae(pictures(), sample_posterior=True, generator=generator).sample

        assert torch.equal(vae(pictures()).sample, vae(pictures()).sample)
        assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))

    def test_a_new_scaling_factor_goes_the_way_back(self, vae):
        vae.register_to_config(scaling_factor=0.25)
        assert from_diffusers(vae).config.scaling_factor == 0.25

    def test_configuration_round_trip(self, vae, network):
        again = DiffusersVAE.from_config(vae.config)
        assert again.config == vae.config and again.network.config == network.config
        assert json.loads(vae.to_json_string())["attention_heads"] == network.config.heads

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
    def test_save_and_load(self, vae, tmp_path, dtype):
        vae.register_to_config(scaling_factor=0.3, shift_factor=0.1)
        vae.to(dtype).save_pretrained(tmp_path)
        assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
        again = DiffusersVAE.from_pretrained(tmp_path, torch_dtype=dtype)
        assert again.dtype == dtype and not again.training
        assert (again.config.scaling_factor, again.config.shift_factor) == (0.3, 0.1)
        weights = vae.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in again.state_dict().items())

    def test_a_variant(self, vae, tmp_path):
        vae.save_pretrained(tmp_path, variant="fp16")
        again = DiffusersVAE.from_pretrained(tmp_path, variant="fp16")
        assert again.num_parameters() == vae.num_parameters()
        with pytest.raises(OSError):
            DiffusersVAE.from_pretrained(tmp_path)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_precision_is_as_near_the_truth_as_the_librarys(self, dtype):
        """Pixels change their range in float32, so that no digits are lost on the way."""
        x = pictures()
        exact = to_diffusers(one_head())
        z = exact.encode(x).latent_dist.mean
        truth = z, exact.decode(z).sample
        errors = []
        for vae in (to_diffusers(one_head()), DiffusersVAE.of(one_head())):
            vae = nn.Module.to(vae, dtype)
            found = vae.encode(x.to(dtype)).latent_dist.mean, vae.decode(z.to(dtype)).sample
            assert all(each.dtype == dtype for each in found)
            apart = [(a.float() - b).square().mean().sqrt() for a, b in zip(found, truth)]
            errors.append(torch.stack(apart))
        assert (errors[1] < 2 * errors[0]).all()

    def test_every_weight_is_trained(self, vae):
        vae.train()
        vae(pictures(), sample_posterior=True).sample.square().mean().backward()
        assert all(weight.grad is not None for weight in vae.parameters())

    def test_gradient_checkpointing_changes_memory_and_not_gradients(self, vae):
        def step() -> tuple[dict, int]:
            sizes = {}

            def pack(tensor: torch.Tensor) -> torch.Tensor:
                sizes[tensor.data_ptr()] = tensor.nbytes
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                out = vae.train()(pictures()).sample
            vae.zero_grad()
            out.square().mean().backward()
            gradients = {name: w.grad.clone() for name, w in vae.named_parameters()}
            return gradients, sum(sizes.values())

        assert not vae.is_gradient_checkpointing
        plain, much = step()
        vae.enable_gradient_checkpointing()
        assert vae.is_gradient_checkpointing
        saving, little = step()
        assert little < 0.7 * much
        for name, gradient in plain.items():
            torch.testing.assert_close(saving[name], gradient)
        vae.disable_gradient_checkpointing()
        assert not vae.is_gradient_checkpointing and step()[1] == much

    def test_checkpointing_by_a_function_of_ones_own(self, vae):
        calls = []

        def function(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
            calls.append(type(block).__name__)
            return checkpoint(block, x, use_reentrant=False)

        vae.enable_gradient_checkpointing(function)
        vae.train()(pictures()).sample.mean().backward()
        blocks = [m for m in vae.modules() if type(m).__name__ == "Stage"]
        assert len(calls) >= sum(len(stage.blocks) for stage in blocks)

    def test_a_network_that_keeps_all_says_so(self):
        adapter = Mosaic(block_out_channels=(4, 4), latent_channels=12, sample_size=8)
        with pytest.raises(CourseError, match="needs a method set_gradient_checkpointing"):
            adapter.enable_gradient_checkpointing()

    def test_what_may_not_be_split_over_devices_exists(self, vae):
        names = {type(module).__name__ for module in vae.modules()}
        assert set(vae._no_split_modules) <= names

    def test_pipelines_that_upcast_find_the_dtype_of_the_weights(self, vae):
        """As Stable Diffusion XL asks for it: latents.to(next(iter(post_quant_conv…)).dtype)."""
        for dtype in (torch.float16, torch.float32):
            nn.Module.to(vae, dtype)
            assert next(iter(vae.post_quant_conv.parameters())).dtype == dtype
        names = {name.partition(".")[0] for name in vae.state_dict()}
        assert names == {"network"}

    def test_offloading_hooks_are_called_before_encoding_and_decoding(self, vae):
        """accelerate's CPU offload stands on it: the hook moves a model to the GPU when used."""
        calls = []
        vae._hf_hook = SimpleNamespace(pre_forward=lambda module: calls.append(module))
        vae.decode(vae.encode(pictures()).latent_dist.mode())
        assert calls == [vae, vae]

    def test_slicing_is_exact_and_goes_one_by_one(self, vae, monkeypatch):
        x = pictures(3)
        seen = []
        whole = vae(x).sample
        decode = vae.network.decode
        monkeypatch.setattr(vae.network, "decode", lambda z: seen.append(len(z)) or decode(z))
        vae.enable_slicing()
        torch.testing.assert_close(vae(x).sample, whole)
        assert seen == [1, 1, 1]
        vae.disable_slicing()
        vae(x)
        assert seen[3:] == [3]

    def test_tiling_works_on_pieces_of_the_sample_size(self, vae, monkeypatch):
        x = pictures(1, 64, 96)
        seen = []
        whole = vae(x).sample
        small = vae(x[..., :32, :32]).sample
        encode = vae.network.encode
        monkeypatch.setattr(
            vae.network, "encode", lambda t: seen.append(tuple(t.shape[2:])) or encode(t)
        )
        vae.enable_tiling()
        tiles = vae(x).sample
        assert set(seen) == {(32, 32)} and len(seen) > 4
        assert tiles.shape == whole.shape and not torch.equal(tiles, whole)
        assert torch.equal(vae(x[..., :32, :32]).sample, small)  # which is not cut
        vae.disable_tiling()
        torch.testing.assert_close(vae(x).sample, whole)

    def test_the_size_of_tiles_is_an_attribute_as_on_the_librarys(self, vae, monkeypatch):
        seen = {"encode": [], "decode": []}
        for name in seen:
            inner = getattr(vae.network, name)

            def look(t, inner=inner, sizes=seen[name]):
                sizes.append(tuple(t.shape[2:]))
                return inner(t)

            monkeypatch.setattr(vae.network, name, look)
        library = to_diffusers(one_head(), sample_size=vae.config.sample_size)
        for name in ("tile_sample_min_size", "tile_latent_min_size", "tile_overlap_factor"):
            assert getattr(vae, name) == getattr(library, name)
        vae.enable_tiling()
        vae.tile_sample_min_size = 16
        vae.tile_latent_min_size = 4
        vae(pictures(1, 16, 48))
        assert set(seen["encode"]) == {(16, 16)} and set(seen["decode"]) == {(4, 4)}
        assert len(seen["encode"]) == len(seen["decode"]) == 4
        vae.tile_overlap_factor = 0.5
        vae(pictures(1, 16, 48))
        assert len(seen["encode"]) == len(seen["decode"]) == 4 + 5

    def test_the_folder_of_an_autoencoder_kl_is_refused(self, tmp_path):
        to_diffusers(one_head()).save_pretrained(tmp_path)
        with pytest.raises(CourseError, match="holds no DiffusersVAE") as error:
            DiffusersVAE.from_pretrained(tmp_path)
        assert "from_diffusers" in str(error.value) and "\n" not in str(error.value)

    def test_from_diffusers_gives_its_network(self, vae, network):
        again = from_diffusers(vae)
        pipeline = {"sample_size": vae.config.sample_size}
        assert again.config == replace(network.config, pipeline=pipeline)
        weights = network.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in again.state_dict().items())

    def test_a_network_of_ones_own(self, tmp_path):
        adapter = Mosaic(block_out_channels=(4, 4), latent_channels=12, sample_size=8)
        adapter.save_pretrained(tmp_path)
        again = Mosaic.from_pretrained(tmp_path)
        torch.testing.assert_close(again(pictures()).sample, adapter(pictures()).sample)
        assert again.encode(pictures()).latent_dist.mean.shape == (2, 12, 16, 24)

    def test_what_cannot_be_encoded_is_said_in_a_sentence(self, vae):
        with pytest.raises(CourseError, match="does not divide by 4"):
            vae.encode(pictures(1, 30, 32))

    def test_the_adapters_weights_are_its_own(self, vae, network):
        with torch.no_grad():
            for weight in vae.parameters():
                weight.zero_()
        assert all(weight.abs().sum() > 0 for weight in network.parameters())
