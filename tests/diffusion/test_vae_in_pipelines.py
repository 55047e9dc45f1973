"""A VAE of our own in the library's pipelines, converted or adapted, saved, loaded and swapped."""

import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    UNet2DConditionModel,
)

from helpers import CourseError
from helpers.diffusers_bridge import DiffusersVAE, check_vae, swap_vae, to_diffusers
from helpers.diffusion.parts import sample
from helpers.models.conv_vae import ConvVAE
from tests.conftest import ROOT
from tests.diffusion.small_models import (
    PATCHES,
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


def with_patches(_) -> DiffusersVAE:
    return DiffusersVAE.of(randomised(ConvVAE(PATCHES)))


@pytest.mark.parametrize(
    "make", [to_diffusers, DiffusersVAE.of, with_patches], ids=["converted", "adapted", "patches"]
)
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
    """A converted VAE needs nothing of the course, an adapted one the module its file names."""
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

    @pytest.mark.parametrize("inputs", [9, 8, 5, 7], ids=["inpaint", "edit", "depth", "upscale"])
    def test_what_a_unet_gives_counts_and_not_what_else_it_is_told(self, inputs):
        pipeline = pipeline_of(to_diffusers(one_head()))
        config = dict(pipeline.unet.config) | {"in_channels": inputs}
        pipeline.unet = UNet2DConditionModel.from_config(config)
        check_vae(pipeline)

    @pytest.mark.parametrize("start", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
    def test_an_offloaded_pipeline_offloads_the_new_one_too(self, start, network):
        pipeline = pipeline_of(to_diffusers(one_head()))
        getattr(pipeline, start)(device="cpu")
        new = swap_vae(pipeline, DiffusersVAE.of(network)).vae
        hooked = [
            any(hasattr(m, "_hf_hook") for m in part.modules()) for part in (pipeline.unet, new)
        ]
        assert hooked == [True, True]
        if start == "enable_model_cpu_offload":
            assert sample(pipeline, PROMPTS, steps=1).isfinite().all()
        pipeline.remove_all_hooks()  # brings the weights back
        weights = network.state_dict()
        assert all(torch.equal(v, weights[k]) for k, v in new.network.state_dict().items())
