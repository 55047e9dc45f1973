"""DiffusersVAE behaves as the library's own models do, alone and in pipelines."""

import inspect
import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import nn

from helpers import CourseError
from helpers.diffusers_bridge import DiffusersVAE, check_vae, swap_vae, to_diffusers
from helpers.diffusion.parts import make_unet, sample
from helpers.models.conv_vae import ConvVAE
from helpers.models.distributions import DiagonalGaussian
from tests.conftest import ROOT
from tests.diffusion.small_models import (
    PROMPTS,
    TWO_HEADS,
    one_head,
    pictures,
    pipeline_of,
    randomised,
)


@pytest.fixture
def network() -> ConvVAE:
    return randomised(ConvVAE(TWO_HEADS))


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


class TestLikeTheLibrarysModels:
    def test_it_computes_what_its_network_computes_on_pixels_of_0_to_1(self, vae, network):
        x = pictures()
        found, expected = vae.encode(x).latent_dist, network.encode((x + 1) / 2)
        assert torch.equal(found.mean, expected.mean)
        assert torch.equal(found.logvar, expected.logvar)
        assert torch.equal(vae.decode(found.mean).sample, 2 * network.decode(found.mean) - 1)

    def test_outputs_are_the_librarys_and_tuples_on_request(self, vae):
        encoded, decoded = vae.encode(pictures()), vae.decode(torch.randn(1, 4, 8, 12))
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

    def test_configuration_round_trip(self, vae):
        again = DiffusersVAE.from_config(vae.config)
        assert again.config == vae.config and again.network.config == TWO_HEADS
        assert json.loads(vae.to_json_string())["attention_heads"] == 2

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
        x, exact = pictures(), to_diffusers(one_head())
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

    def test_offloading_hooks_are_called_before_encoding_and_decoding(self, vae):
        """accelerate's CPU offload stands on it: the hook moves a model to the GPU when used."""
        calls = []
        vae._hf_hook = SimpleNamespace(pre_forward=lambda module: calls.append(module))
        vae.decode(vae.encode(pictures()).latent_dist.mode())
        assert calls == [vae, vae]

    def test_slicing_is_exact_and_goes_one_by_one(self, vae, monkeypatch):
        x, seen = pictures(3), []
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
        x, seen = pictures(1, 64, 96), []
        whole, small = vae(x).sample, vae(x[..., :32, :32]).sample
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


@pytest.mark.parametrize("make", [to_diffusers, DiffusersVAE.of], ids=["converted", "adapted"])
class TestInPipelines:
    def test_image_to_image(self, make):
        parts = pipeline_of(make(one_head())).components
        pipeline = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        start = (pictures(2, 32, 32) + 1) / 2
        settings = {"strength": 0.5, "num_inference_steps": 4, "output_type": "pt"}
        noise = [torch.Generator().manual_seed(i) for i in range(2)]
        out = pipeline(PROMPTS, image=start, generator=noise, **settings).images
        assert out.shape == start.shape and out.isfinite().all()

    def test_inpainting(self, make):
        parts = pipeline_of(make(one_head())).components
        pipeline = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        start = (pictures(1, 32, 32) + 1) / 2
        mask = torch.zeros(1, 1, 32, 32)
        mask[..., 16:] = 1
        settings = {"height": 32, "width": 32, "num_inference_steps": 2, "output_type": "pt"}
        noise = torch.Generator().manual_seed(0)
        out = pipeline(PROMPTS[0], image=start, mask_image=mask, generator=noise, **settings).images
        assert out.shape == start.shape and out.isfinite().all()


def test_converted_and_adapted_draw_the_same_pictures():
    converted = sample(pipeline_of(to_diffusers(one_head())), PROMPTS, steps=2)
    adapted = sample(pipeline_of(DiffusersVAE.of(one_head())), PROMPTS, steps=2)
    assert converted.shape == (2, 3, 32, 32)
    assert 0 <= converted.min() < converted.max() <= 1
    torch.testing.assert_close(converted, adapted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_saved_pipelines_draw_the_same_pixels_in_a_new_process(tmp_path):
    """A converted VAE needs nothing of the course, an adapted one the module that its file names."""
    before = {}
    for name, make in {"converted": to_diffusers, "adapted": DiffusersVAE.of}.items():
        pipeline = pipeline_of(make(one_head()))
        pipeline.save_pretrained(tmp_path / name)
        before[name] = sample(pipeline, PROMPTS[:1], steps=2)
    code = f"""
        import sys, torch
        from pathlib import Path
        from diffusers import StableDiffusionPipeline

        torch.set_num_threads(1)
        pipeline = StableDiffusionPipeline.from_pretrained("converted")
        noise = torch.Generator().manual_seed(0)
        settings = {{"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pt"}}
        torch.save(pipeline("{PROMPTS[0]}", generator=noise, **settings).images, "converted.pt")
        assert not any(name.startswith("helpers") for name in sys.modules)

        sys.path.insert(0, "{ROOT}")
        from helpers.diffusion.parts import load_tiny_sd, sample

        torch.save(sample(load_tiny_sd(Path("adapted")), ["{PROMPTS[0]}"], steps=2), "adapted.pt")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    for name, expected in before.items():
        assert torch.equal(torch.load(tmp_path / f"{name}.pt", weights_only=True), expected)


class TestSwap:
    def test_the_new_one_is_used_in_the_pipelines_dtype(self, network):
        pipeline = pipeline_of(to_diffusers(one_head())).to(torch.bfloat16)
        other = DiffusersVAE.of(network)
        assert swap_vae(pipeline, other) is pipeline
        assert pipeline.vae is other and other.dtype == torch.bfloat16
        assert pipeline.config["vae"] == ("helpers.diffusers_bridge", "DiffusersVAE")

    def test_the_new_one_goes_to_the_pipelines_device(self, network):
        pipeline = pipeline_of(to_diffusers(one_head()))
        pipeline.unet.to("meta")
        assert swap_vae(pipeline, DiffusersVAE.of(network)).vae.device.type == "meta"

    @pytest.mark.parametrize(
        "change, said",
        [
            ({"latent_channels": 8}, "UNet works on latents of 4 channels and this VAE has 8"),
            (
                {"channels": (8, 16)},
                "latents 4 times smaller .* 2 times smaller: take one with 3 block_out_channels",
            ),
        ],
        ids=["channels", "factor"],
    )
    def test_another_shape_is_refused_before_any_sampling(self, change, said):
        pipeline = pipeline_of(to_diffusers(one_head()))
        other = to_diffusers(ConvVAE(replace(TWO_HEADS, heads=1, **change)))
        before = pipeline.vae
        with pytest.raises(CourseError, match=said):
            swap_vae(pipeline, other)
        assert pipeline.vae is before
        pipeline.vae = other
        with pytest.raises(CourseError, match=said):
            sample(pipeline, PROMPTS)

    def test_a_bare_module_is_refused_in_a_sentence(self, network):
        with pytest.raises(CourseError, match="A pipeline cannot use a ConvVAE"):
            swap_vae(pipeline_of(to_diffusers(one_head())), network)

    def test_an_inpainting_unet_is_accepted(self):
        pipeline = pipeline_of(to_diffusers(one_head()))
        pipeline.unet = make_unet(text_width=16, latent_channels=9, channels=(16, 32))
        check_vae(pipeline)
