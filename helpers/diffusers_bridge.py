"""Between the course's VAE and Hugging Face diffusers (notebook 9).

`to_diffusers` and `from_diffusers` convert the weights of a ConvVAE to the library's AutoencoderKL
and back.  `DiffusersVAE` lets a network that is not Stable Diffusion's take that place in a
pipeline.  In the library pictures are in [-1, 1], in the course's networks in [0, 1].
"""

from collections.abc import Callable
from functools import partial

import torch
import transformers
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin, StableDiffusionPipeline
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import (
    AutoencoderMixin,
    DecoderOutput,
    DiagonalGaussianDistribution,
)
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils import logging
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from helpers import CourseError
from helpers.diffusion.autoencoder_kl import (
    FIELDS,
    from_diffusers,
    library_fields,
    to_diffusers,
    with_weights,
)
from helpers.diffusion.tiling import tiled
from helpers.diffusion.weight_names import unwrapped
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.models.distributions import at_least_float32

__all__ = [
    "DiffusersVAE",
    "StableDiffusionPipeline",
    "check_vae",
    "from_diffusers",
    "swap_vae",
    "to_diffusers",
]

logging.disable_progress_bar()  # bars of loading and saving would fill a notebook's outputs
transformers.utils.logging.disable_progress_bar()


class DiffusersVAE(ModelMixin, AutoencoderMixin, ConfigMixin):
    """A VAE of our own in the place of a pipeline's AutoencoderKL.

    Images are (B, 3, H, W) in [-1, 1], as the library has them, latents (B, latent_channels, H/f,
    W/f).  The arguments are the configuration that `save_pretrained` writes and pipelines read:
    they take the factor from len(block_out_channels), and multiply latents by scaling_factor.

    `build` makes the network out of it: a ConvVAE here, in a derived class whatever has
    encode(images) → DiagonalGaussian and decode(latents) → images.  That network works, like all of
    the course, on images in [0, 1]; the adapter converts.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["ResBlock", "AttentionBlock"]  # for device_map="auto"

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (8, 16, 32, 64),
        latent_channels: int = 4,
        layers_per_block: int = 1,
        norm_num_groups: int = 2,
        attention_heads: int = 1,
        patch: int = 1,
        linear_shortcut: bool = False,
        mid_block_add_attention: bool = True,
        use_quant_conv: bool = True,
        sample_size: int = 64,
        scaling_factor: float = 1.0,
        shift_factor: float | None = None,
        force_upcast: bool = False,
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
    ):
        super().__init__()
        self.network = self.build()
        self.use_slicing = False
        self.use_tiling = False
        self.tile_sample_min_size = sample_size  # larger pictures are cut
        self.tile_latent_min_size = sample_size // self._factor
        self.tile_overlap_factor = 0.25
        self.gradient_checkpointing = False

    def build(self) -> nn.Module:
        """The network that `self.config` describes, with fresh weights; images in [0, 1]."""
        config = self.config
        fields = {ours: config[theirs] for ours, theirs in FIELDS.items()}
        fields["channels"] = fields["channels"][config.patch.bit_length() - 1 :]
        fields |= {"patch": config.patch, "linear_shortcut": config.linear_shortcut}
        return ConvVAE(VAEConfig(heads=config.attention_heads, **fields))

    @classmethod
    def of(cls, vae: ConvVAE, sample_size: int | None = None) -> "DiffusersVAE":
        """The adapter of a ConvVAE of any configuration; sample_size as in `to_diffusers`."""
        vae = getattr(vae, "_orig_mod", vae)  # what torch.compile wraps
        fields = library_fields(vae, sample_size)
        with torch.device("meta"):
            own = {"patch": vae.config.patch, "linear_shortcut": vae.config.linear_shortcut}
            adapter = cls(attention_heads=vae.config.heads, **own, **fields)
        weights = {f"network.{unwrapped(k)}": value for k, value in vae.state_dict().items()}
        return with_weights(adapter, vae, weights)

    @classmethod
    def from_pretrained(cls, folder, **options) -> "DiffusersVAE":
        """The library's; CourseError where the folder holds another kind of autoencoder.

        The library would warn, and go on with random weights.
        """
        wants_report = options.pop("output_loading_info", False)
        model, report = super().from_pretrained(folder, output_loading_info=True, **options)
        first = next(iter([*report["missing_keys"], *report["unexpected_keys"]]), None)
        if first:
            raise CourseError(
                f"This folder holds no {cls.__name__} (first fault: {first}): an AutoencoderKL is "
                "loaded with AutoencoderKL.from_pretrained, and from_diffusers makes a ConvVAE of "
                "it."
            )
        return (model, report) if wants_report else model

    @apply_forward_hook
    def encode(self, x: torch.Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        """Images → AutoencoderKLOutput(latent_dist), or a tuple of the distribution alone."""
        posterior = DiagonalGaussianDistribution(self._sliced(self._encode, x))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @apply_forward_hook
    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator=None
    ) -> DecoderOutput | tuple:
        """Latents → DecoderOutput(sample), or a tuple of the images alone.

        Pipelines hand over a `generator`; nothing is drawn here.
        """
        images = self._sliced(self._decode, z)
        return DecoderOutput(sample=images) if return_dict else (images,)

    def forward(
        self,
        sample: torch.Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> DecoderOutput | tuple:
        """Images → reconstructed images, through the posterior's mode or a draw from it."""
        posterior = self.encode(sample).latent_dist
        z = posterior.sample(generator) if sample_posterior else posterior.mode()
        return self.decode(z, return_dict=return_dict)

    @property
    def post_quant_conv(self) -> nn.Module:
        """Pipelines that upcast (force_upcast) ask it for the dtype that latents must have."""
        return self.network

    @property
    def _factor(self) -> int:
        return 2 ** (len(self.config.block_out_channels) - 1)

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        side = self.tile_sample_min_size
        if self.use_tiling and max(x.shape[2:]) > side:
            return tiled(self._moments, x, side, 1 / self._factor, self.tile_overlap_factor)
        return self._moments(x)

    def _moments(self, x: torch.Tensor) -> torch.Tensor:
        pixels = (at_least_float32(x) + 1) / 2  # [-1, 1] → [0, 1]; half precision would round twice
        posterior = self.network.encode(pixels.to(x.dtype))
        return torch.cat([posterior.mean, posterior.logvar], dim=1)  # (B, 2·latent, H/f, W/f)

    def _decode(self, z: torch.Tensor) -> torch.Tensor:
        side = self.tile_latent_min_size
        if self.use_tiling and max(z.shape[2:]) > side:
            return tiled(self._images, z, side, self._factor, self.tile_overlap_factor)
        return self._images(z)

    def _images(self, z: torch.Tensor) -> torch.Tensor:
        images = 2 * self.network.decode(z) - 1  # (B, latent, H/f, W/f) → (B, 3, H, W); to [-1, 1]
        return images.to(z.dtype)

    def _sliced(self, function: Callable, x: torch.Tensor) -> torch.Tensor:
        if self.use_slicing:
            return torch.cat([function(one) for one in x.split(1)])
        return function(x)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable | None = None
    ) -> None:
        if not hasattr(self.network, "set_gradient_checkpointing"):
            raise CourseError(
                f"A {type(self.network).__name__} keeps all it computes: gradient checkpointing "
                "needs a method set_gradient_checkpointing, as ConvVAE has it."
            )
        self.gradient_checkpointing = enable
        given = gradient_checkpointing_func
        self.network.set_gradient_checkpointing(enable, *([given] if given else []))


def swap_vae(pipeline: DiffusionPipeline, vae: nn.Module) -> DiffusionPipeline:
    """Put an AutoencoderKL or DiffusersVAE into a Stable Diffusion pipeline, in place.

    It is brought to the UNet's dtype and device.  CourseError where it does not fit; an assignment
    to pipeline.vae checks and casts nothing.
    """
    check_vae(pipeline, vae)
    offload = _offload_again(pipeline)
    vae = vae.to(pipeline.unet.device)
    if vae.dtype != pipeline.unet.dtype:
        nn.Module.to(vae, pipeline.unet.dtype)  # the library's own `to` warns of every cast
    pipeline.register_modules(vae=vae)
    offload()
    return pipeline


def _offload_again(pipeline: DiffusionPipeline) -> Callable[[], None]:
    """Bring an offloaded pipeline's parts back to the CPU; the function offloads them as before.

    Offloading hangs hooks on the parts that a pipeline has at that moment.
    """
    if not hasattr(pipeline.unet, "_hf_hook"):
        return lambda: None
    whole_models = bool(getattr(pipeline, "_all_hooks", ()))
    start = (
        pipeline.enable_model_cpu_offload
        if whole_models
        else pipeline.enable_sequential_cpu_offload
    )
    pipeline.remove_all_hooks()
    pipeline.unet.to("cpu")
    return partial(start, device=pipeline._offload_device)


def check_vae(pipeline: DiffusionPipeline, vae: nn.Module | None = None) -> None:
    """CourseError, before any sampling, unless a VAE makes latents as the pipeline's UNet has them.

    vae: by default the pipeline's own.
    """
    vae = vae or pipeline.vae
    if not isinstance(vae, ModelMixin) or "block_out_channels" not in vae.config:
        raise CourseError(
            f"A pipeline cannot use a {type(vae).__name__}: to_diffusers or DiffusersVAE make of "
            "it what it can use."
        )
    # of its inputs some may be of other things: a mask, a depth, a picture to be changed
    wanted = pipeline.unet.config.out_channels
    given = vae.config.latent_channels
    if wanted != given:
        raise CourseError(
            f"The UNet works on latents of {wanted} channels and this VAE has {given}: one of them "
            "has to be trained anew."
        )
    wanted = pipeline.vae_scale_factor
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if factor != wanted:
        raise CourseError(
            f"The pipeline counts on latents {wanted} times smaller than pictures, and this VAE "
            f"makes them {factor} times smaller: take one with {wanted.bit_length()} "
            "block_out_channels."
        )
