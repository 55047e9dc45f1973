"""Between the course's VAE and Hugging Face diffusers (notebook 9).

`to_diffusers` and `from_diffusers` convert the weights of a ConvVAE to the library's AutoencoderKL
and back.  `DiffusersVAE` lets a network that is not Stable Diffusion's take that place in a
pipeline.  In the library pictures are in [-1, 1], in the course's networks in [0, 1].
"""

from collections.abc import Callable

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    ConfigMixin,
    DiffusionPipeline,
    ModelMixin,
    StableDiffusionPipeline,
)
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
from helpers.diffusion.tiling import tiled
from helpers.diffusion.weight_names import DIFFUSERS, rename, rename_keys
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

FIELDS = {  # VAEConfig's: what diffusers calls them in a configuration
    "channels": "block_out_channels",
    "latent_channels": "latent_channels",
    "blocks": "layers_per_block",
    "groups": "norm_num_groups",
    "mid_attention": "mid_block_add_attention",
    "quant_conv": "use_quant_conv",
    "scaling_factor": "scaling_factor",
}
ADAPTED = FIELDS | {"heads": "attention_heads"}  # AutoencoderKL has one head


def to_diffusers(vae: ConvVAE, sample_size: int = 64) -> AutoencoderKL:
    """The same weights as an AutoencoderKL, with the same dtype, device and scaling factor.

    The AutoencoderKL takes and gives pictures in [-1, 1].  sample_size: side in pixels of the
    pictures it was trained on; with tiling on, larger ones are cut into tiles of that size.
    CourseError for what AutoencoderKL does not have: several heads.
    """
    config = vae.config
    if config.heads != 1:
        raise CourseError(
            f"AutoencoderKL attends with one head and this ConvVAE has {config.heads}: "
            "use DiffusersVAE."
        )
    levels = len(config.channels)
    with torch.device("meta"):  # the weights are given, not drawn
        autoencoder = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            sample_size=sample_size,
            force_upcast=False,
            use_post_quant_conv=config.quant_conv,
            **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        )
    return _with_weights(autoencoder, vae, rename(vae.state_dict(), DIFFUSERS, to_ours=False))


def from_diffusers(autoencoder: AutoencoderKL) -> ConvVAE:
    """The same weights as a ConvVAE, with the same dtype, device and scaling factor.

    The ConvVAE takes and gives pictures in [0, 1].  CourseError where the AutoencoderKL is built of
    parts that a ConvVAE does not have.
    """
    config = autoencoder.config
    levels = len(config.block_out_channels)
    wanted = {
        "in_channels": 3,
        "out_channels": 3,
        "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_post_quant_conv": config.use_quant_conv,
    }
    for name, value in wanted.items():
        found = list(config[name]) if isinstance(value, list) else config[name]
        if found != value:
            raise CourseError(
                f"This AutoencoderKL has {name} = {found}; a ConvVAE can only be {value}."
            )
    with torch.device("meta"):
        vae = ConvVAE(VAEConfig(**{ours: config[theirs] for ours, theirs in FIELDS.items()}))
    return _with_weights(vae, autoencoder, rename_keys(autoencoder.state_dict()))


def _with_weights(
    model: nn.Module, source: nn.Module, weights: dict[str, torch.Tensor]
) -> nn.Module:
    """`model` with copies of `weights` (dtype and device too), in the mode of `source`."""
    copies = {key: value.clone() for key, value in weights.items()}
    model.load_state_dict(copies, assign=True)
    return model.train(source.training)


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

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (8, 16, 32, 64),
        latent_channels: int = 4,
        layers_per_block: int = 1,
        norm_num_groups: int = 2,
        attention_heads: int = 1,
        mid_block_add_attention: bool = True,
        use_quant_conv: bool = True,
        sample_size: int = 64,
        scaling_factor: float = 1.0,
        shift_factor: float | None = None,
        force_upcast: bool = False,
    ):
        super().__init__()
        self.network = self.build()
        self.use_slicing = False
        self.use_tiling = False
        self.gradient_checkpointing = False

    def build(self) -> nn.Module:
        """The network that `self.config` describes, with fresh weights; images in [0, 1]."""
        fields = {ours: self.config[theirs] for ours, theirs in ADAPTED.items()}
        return ConvVAE(VAEConfig(**fields))

    @classmethod
    def of(cls, vae: ConvVAE, sample_size: int = 64) -> "DiffusersVAE":
        """The adapter of a ConvVAE with any number of heads; sample_size as in `to_diffusers`."""
        with torch.device("meta"):
            fields = {theirs: getattr(vae.config, ours) for ours, theirs in ADAPTED.items()}
            adapter = cls(sample_size=sample_size, **fields)
        weights = {f"network.{key}": value for key, value in vae.state_dict().items()}
        return _with_weights(adapter, vae, weights)

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
    def _factor(self) -> int:
        return 2 ** (len(self.config.block_out_channels) - 1)

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        if self.use_tiling and max(x.shape[2:]) > self.config.sample_size:
            return tiled(self._moments, x, self.config.sample_size, 1 / self._factor)
        return self._moments(x)

    def _moments(self, x: torch.Tensor) -> torch.Tensor:
        pixels = (at_least_float32(x) + 1) / 2  # [-1, 1] → [0, 1]; half precision would round twice
        posterior = self.network.encode(pixels.to(x.dtype))
        return torch.cat([posterior.mean, posterior.logvar], dim=1)  # (B, 2·latent, H/f, W/f)

    def _decode(self, z: torch.Tensor) -> torch.Tensor:
        side = self.config.sample_size // self._factor
        if self.use_tiling and max(z.shape[2:]) > side:
            return tiled(self._images, z, side, self._factor)
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
        self.gradient_checkpointing = enable
        self.network.set_gradient_checkpointing(enable)


def swap_vae(pipeline: DiffusionPipeline, vae: nn.Module) -> DiffusionPipeline:
    """Put an AutoencoderKL or DiffusersVAE into a Stable Diffusion pipeline, in place.

    It is brought to the UNet's dtype and device.  CourseError where it does not fit; an assignment
    to pipeline.vae checks and casts nothing.
    """
    check_vae(pipeline, vae)
    vae = vae.to(pipeline.unet.device)
    if vae.dtype != pipeline.unet.dtype:
        nn.Module.to(vae, pipeline.unet.dtype)  # the library's own `to` warns of every cast
    pipeline.register_modules(vae=vae)
    return pipeline


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
    wanted = pipeline.unet.config.in_channels
    given = vae.config.latent_channels
    if wanted not in (given, 2 * given + 1):  # an inpainting UNet: latents, masked latents, mask
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
