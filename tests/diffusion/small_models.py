"""What the tests of this folder share: small networks of random weights, pipelines of them."""

from dataclasses import replace

import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from helpers.diffusion.parts import make_pipeline, make_text_encoder, make_tokenizer, make_unet
from helpers.models.conv_vae import ConvVAE, VAEConfig

CONFIGS = {
    "course f4": VAEConfig.course(4),
    "course f8": VAEConfig.course(8),
    "one level": VAEConfig((8,), blocks=2, groups=2),
    "no attention": VAEConfig((8, 16, 16), mid_attention=False, groups=4, latent_channels=7),
    "no quant_conv": VAEConfig((8, 16), quant_conv=False, groups=4, blocks=3),
    "published": VAEConfig.stable_diffusion(),
}
TWO_HEADS = VAEConfig((8, 16, 16), 4, blocks=1, groups=4, heads=2, scaling_factor=0.7)
PATCHES = VAEConfig((16,), 4, 2, patch=4, linear_shortcut=True, groups=4, quant_conv=False)
PROMPTS = ["a red dog", "a gray dog"]


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """All weights random, norms' and biases' too: their defaults, 1 and 0, would hide a fault."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            if weight.dim() == 1:
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                weight.copy_(0.3 * noise + centre)
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)
    return model.eval()


def one_head() -> ConvVAE:
    """A network that both AutoencoderKL and DiffusersVAE can be: f4, 4 channels."""
    return randomised(ConvVAE(replace(TWO_HEADS, heads=1)))


def pictures(count: int = 2, height: int = 32, width: int = 48) -> torch.Tensor:
    """Noise as the library's pictures are, in [-1, 1]."""
    shape = (count, 3, height, width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def pipeline_of(vae: nn.Module, channels: int = 4) -> StableDiffusionPipeline:
    """The library's pipeline with a small random UNet and text encoder."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(PROMPTS)
    text_encoder = make_text_encoder(tokenizer, width=16)
    unet = make_unet(text_width=16, latent_channels=channels, sample_size=8, channels=(16, 32))
    return make_pipeline(vae, text_encoder, tokenizer, unet)
