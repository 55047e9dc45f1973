"""DiffusersVAE behaves as the library's own models do, alone and in pipelines."""

import copy
import inspect
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

from helpers import CourseError
from helpers.conv_vae import ConvVAE, VAEConfig
from helpers.diffusers_bridge import DiffusersVAE, check_vae, swap_vae, to_diffusers
from helpers.tiny_sd import make_pipeline, make_text_encoder, make_tokenizer, make_unet, sample
from tests.conftest import ROOT
from tests.test_diffusers_bridge import randomised

CONFIG = VAEConfig((8, 16, 16), latent_channels=4, blocks=1, groups=4, heads=2, scaling_factor=0.7)
PROMPTS = ["a red dog", "a gray dog"]


@pytest.fixture
def network() -> ConvVAE:
    return randomised(ConvVAE(CONFIG))


@pytest.fixture
def vae(network) -> DiffusersVAE:
    return DiffusersVAE.of(network, sample_size=32)


def images(count: int = 2, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def pipeline_of(vae, channels: int = 4) -> StableDiffusionPipeline:
    """The library's pipeline with a small random UNet and text encoder."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(PROMPTS)
    text = make_text_encoder(tokenizer, width=16)
    unet = make_unet(text_width=16, latent_channels=channels, sample_size=8, channels=(16, 32))
    return make_pipeline(vae, text, tokenizer, unet)


class TestLikeTheLibrarysModels:
    def test_it_computes_what_its_network_computes(self, vae, network):
        x = images()
        posterior = vae.encode(x).latent_dist
        assert torch.equal(posterior.mean, network.encode(x).mean)
        assert torch.equal(posterior.logvar, network.encode(x).logvar)
        assert torch.equal(vae.decode(posterior.mean).sample, network.decode(posterior.mean))

    def test_outputs_are_the_librarys_and_tuples_on_request(self, vae):
        encoded, decoded = vae.encode(images()), vae.decode(torch.randn(1, 4, 8, 12))
        assert isinstance(encoded, AutoencoderKLOutput) and isinstance(encoded.latent_dist, DiagonalGaussianDistribution)
        assert isinstance(decoded, DecoderOutput) and isinstance(vae(images()), DecoderOutput)
        (posterior,) = vae.encode(images(), return_dict=False)
        assert torch.equal(posterior.mean, encoded.latent_dist.mean)
        (again,) = vae(images(), return_dict=False)
        assert torch.equal(again, vae(images()).sample)

    def test_methods_take_what_autoencoder_kl_takes(self):
        for name in ("encode", "decode", "forward"):
            own, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (DiffusersVAE, AutoencoderKL))
            assert list(own) == list(theirs)
            assert [p.default for p in own.values()] == [p.default for p in theirs.values()]

    def test_it_is_deterministic_but_for_the_posterior(self, vae):
        x = images()
        assert torch.equal(vae(x).sample, vae(x).sample)
        draws = [vae(x, sample_posterior=True, generator=torch.Generator().manual_seed(s)).sample for s in (1, 1, 2)]
        assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])

    def test_configuration_round_trip(self, vae):
        again = DiffusersVAE.from_config(vae.config)
        assert again.config == vae.config and again.network.settings == CONFIG
        assert json.loads(vae.to_json_string())["attention_heads"] == 2

    def test_a_factor_registered_later_is_saved(self, vae, tmp_path):
        vae.register_to_config(scaling_factor=0.3, shift_factor=0.1)
        vae.save_pretrained(tmp_path)
        config = DiffusersVAE.from_pretrained(tmp_path).config
        assert (config.scaling_factor, config.shift_factor) == (0.3, 0.1)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    def test_save_and_load(self, vae, tmp_path, dtype):
        vae.to(dtype).save_pretrained(tmp_path)
        assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
        again = DiffusersVAE.from_pretrained(tmp_path, torch_dtype=dtype)
        assert again.dtype == dtype and not again.training
        assert all(torch.equal(value, vae.state_dict()[key]) for key, value in again.state_dict().items())

    def test_a_variant(self, vae, tmp_path):
        vae.save_pretrained(tmp_path, variant="fp16")
        assert DiffusersVAE.from_pretrained(tmp_path, variant="fp16").num_parameters() == vae.num_parameters()
        with pytest.raises(OSError):
            DiffusersVAE.from_pretrained(tmp_path)

    def test_another_process_loads_it(self, vae, tmp_path):
        vae.save_pretrained(tmp_path / "vae")
        torch.save(images(), tmp_path / "x.pt")
        code = (
            "import sys, torch; from helpers.diffusers_bridge import DiffusersVAE; folder = sys.argv[1]; "
            "torch.set_num_threads(1); x = torch.load(folder + '/x.pt', weights_only=True); "
            "torch.save(DiffusersVAE.from_pretrained(folder + '/vae')(x).sample, folder + '/y.pt')"
        )
        subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, capture_output=True)
        torch.testing.assert_close(torch.load(tmp_path / "y.pt", weights_only=True), vae(images()).sample, rtol=0, atol=1e-6)

    def test_half_precision_computes_in_half_precision(self, vae):
        vae = vae.to(torch.bfloat16)
        assert vae.dtype == torch.bfloat16
        assert vae(images().to(torch.bfloat16)).sample.dtype == torch.bfloat16

    def test_every_weight_is_trained(self, vae):
        vae.train()
        vae(images(), sample_posterior=True).sample.square().mean().backward()
        assert all(weight.grad is not None for weight in vae.parameters())

    def test_gradient_checkpointing_changes_memory_and_not_gradients(self, vae):
        def step(model) -> tuple[dict, int]:
            kept = {}
            with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t.nbytes}) or t, lambda t: t):
                out = model.train()(images()).sample
            model.zero_grad()
            out.square().mean().backward()
            return {name: weight.grad.clone() for name, weight in model.named_parameters()}, sum(kept.values())

        assert not vae.is_gradient_checkpointing
        plain, much = step(vae)
        vae.enable_gradient_checkpointing()
        assert vae.is_gradient_checkpointing
        saving, little = step(vae)
        assert little < 0.7 * much
        for name, gradient in plain.items():
            torch.testing.assert_close(saving[name], gradient)
        vae.disable_gradient_checkpointing()
        assert not vae.is_gradient_checkpointing and step(vae)[1] == much

    def test_offloading_hooks_are_called_before_encoding_and_decoding(self, vae):
        """What accelerate's CPU offload stands on: a model is moved to the GPU by the hook, when it is used."""
        calls = []
        vae._hf_hook = SimpleNamespace(pre_forward=lambda module: calls.append(module))
        vae.decode(vae.encode(images()).latent_dist.mode())
        assert calls == [vae, vae]

    def test_slicing_is_exact_and_goes_one_by_one(self, vae, monkeypatch):
        x, whole, seen = images(3), vae(images(3)).sample, []
        decode = vae.network.decode
        monkeypatch.setattr(vae.network, "decode", lambda z: seen.append(len(z)) or decode(z))
        vae.enable_slicing()
        torch.testing.assert_close(vae(x).sample, whole)
        assert seen == [1, 1, 1]
        vae.disable_slicing()
        vae(x)
        assert seen[3:] == [3]

    def test_tiling_works_on_pieces_of_the_sample_size(self, vae, monkeypatch):
        x, whole, seen = images(1, 64, 96), vae(images(1, 64, 96)).sample, []
        encode = vae.network.encode
        monkeypatch.setattr(vae.network, "encode", lambda t: seen.append(tuple(t.shape[2:])) or encode(t))
        vae.enable_tiling()
        tiles = vae(x).sample
        assert set(seen) == {(32, 32)} and len(seen) > 4
        assert tiles.shape == whole.shape and not torch.equal(tiles, whole)
        vae.disable_tiling()
        torch.testing.assert_close(vae(x).sample, whole)

    def test_small_pictures_are_not_cut(self, vae):
        whole = vae(images(1, 32, 32)).sample
        vae.enable_tiling()
        assert torch.equal(vae(images(1, 32, 32)).sample, whole)

    def test_a_network_of_ones_own(self, tmp_path):
        adapter = Mosaic(block_out_channels=(4, 4), latent_channels=12, sample_size=8)
        adapter.save_pretrained(tmp_path)
        again = Mosaic.from_pretrained(tmp_path)
        torch.testing.assert_close(again(images()).sample, adapter(images()).sample)
        assert again.encode(images()).latent_dist.mean.shape == (2, 12, 16, 24)

    def test_what_cannot_be_encoded_is_said_in_a_sentence(self, vae):
        with pytest.raises(CourseError, match="does not divide by 4"):
            vae.encode(images(1, 30, 32))


class Mosaic(DiffusersVAE):
    """Not Stable Diffusion's architecture at all: pixels of 2×2 blocks as channels."""

    def build(self):
        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.mix = torch.nn.Conv2d(12, 24, 1)
                self.back = torch.nn.Conv2d(12, 12, 1)

            def encode(self, x):
                from helpers.distributions import DiagonalGaussian

                return DiagonalGaussian(*self.mix(torch.nn.functional.pixel_unshuffle(x, 2)).chunk(2, dim=1))

            def decode(self, z):
                return torch.nn.functional.pixel_shuffle(self.back(z), 2)

        return Network()


def one_head() -> ConvVAE:
    return randomised(ConvVAE(replace(CONFIG, heads=1)))


BOTH = pytest.mark.parametrize(
    "make", [lambda: to_diffusers(one_head()), lambda: DiffusersVAE.of(one_head())], ids=["converted", "adapted"]
)


@BOTH
class TestInPipelines:
    def test_text_to_image(self, make):
        pictures = sample(pipeline_of(make()), PROMPTS, steps=2)
        assert pictures.shape == (2, 3, 32, 32) and 0 <= pictures.min() < pictures.max() <= 1

    def test_image_to_image(self, make):
        pipeline = StableDiffusionImg2ImgPipeline(**pipeline_of(make()).components, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        start = (images(2, 32, 32) + 1) / 2
        noise = [torch.Generator().manual_seed(i) for i in range(2)]
        out = pipeline(PROMPTS, image=start, strength=0.5, num_inference_steps=4, generator=noise, output_type="pt").images
        assert out.shape == start.shape and out.isfinite().all()

    def test_inpainting(self, make):
        pipeline = StableDiffusionInpaintPipeline(**pipeline_of(make()).components, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        start, mask = (images(1, 32, 32) + 1) / 2, torch.zeros(1, 1, 32, 32)
        mask[..., 16:] = 1
        settings = {"height": 32, "width": 32, "num_inference_steps": 2, "output_type": "pt"}
        out = pipeline(
            "a red dog", image=start, mask_image=mask, generator=torch.Generator().manual_seed(0), **settings
        ).images
        assert out.shape == start.shape and out.isfinite().all()

    def test_saved_and_loaded_in_a_new_process_it_draws_the_same_pixels(self, make, tmp_path):
        pipeline = pipeline_of(make())
        before = sample(pipeline, PROMPTS, steps=2)
        pipeline.save_pretrained(tmp_path / "pipeline")
        code = (
            "import sys, torch; from pathlib import Path; from helpers.tiny_sd import load_tiny_sd, sample; "
            "torch.set_num_threads(1); folder = Path(sys.argv[1]); "
            f"torch.save(sample(load_tiny_sd(folder / 'pipeline'), {PROMPTS}, steps=2), folder / 'y.pt')"
        )
        subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, capture_output=True)
        assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True), before)


def test_converted_and_adapted_draw_the_same_pictures():
    converted, adapted = (
        sample(pipeline_of(m), PROMPTS, steps=2) for m in (to_diffusers(one_head()), DiffusersVAE.of(one_head()))
    )
    torch.testing.assert_close(converted, adapted, rtol=0, atol=1e-5)


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

    def test_other_latent_channels_are_refused_before_any_sampling(self):
        pipeline = pipeline_of(to_diffusers(one_head()))
        other = to_diffusers(ConvVAE(replace(CONFIG, heads=1, latent_channels=8)))
        before = pipeline.vae
        with pytest.raises(CourseError, match="UNet works on latents of 4 channels and this VAE has 8"):
            swap_vae(pipeline, other)
        assert pipeline.vae is before
        pipeline.vae = other
        with pytest.raises(CourseError, match="latents of 4 channels and this VAE has 8"):
            sample(pipeline, PROMPTS)

    def test_another_factor_is_refused_before_any_sampling(self):
        pipeline = pipeline_of(to_diffusers(one_head()))
        other = to_diffusers(ConvVAE(replace(CONFIG, heads=1, channels=(8, 16))))
        with pytest.raises(
            CourseError, match="latents 4 times smaller .* 2 times smaller: take one with 3 block_out_channels"
        ):
            swap_vae(pipeline, other)
        pipeline.vae = other
        with pytest.raises(CourseError, match="2 times smaller"):
            sample(pipeline, PROMPTS)

    def test_a_bare_module_is_refused_in_a_sentence(self, network):
        with pytest.raises(CourseError, match="A pipeline cannot use a ConvVAE"):
            swap_vae(pipeline_of(to_diffusers(one_head())), network)

    def test_an_inpainting_unet_is_accepted(self):
        pipeline = pipeline_of(to_diffusers(one_head()))
        pipeline.unet = make_unet(text_width=16, latent_channels=9, channels=(16, 32))
        check_vae(pipeline)


def test_the_adapters_weights_are_its_own(network):
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        for weight in DiffusersVAE.of(network).parameters():
            weight.zero_()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
