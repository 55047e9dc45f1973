"""A ConvVAE as diffusers' AutoencoderKL, and back (notebook 9).

In the library pictures are in [-1, 1], in the course's networks in [0, 1].
"""

import torch
from diffusers import AutoencoderKL
from torch import nn

from helpers import CourseError
from helpers.diffusion.weight_names import DIFFUSERS, rename, rename_keys, unwrapped
from helpers.models.conv_vae import ConvVAE, VAEConfig

FIELDS = {  # VAEConfig's: what diffusers calls them in a configuration
    "channels": "block_out_channels",
    "latent_channels": "latent_channels",
    "blocks": "layers_per_block",
    "groups": "norm_num_groups",
    "mid_attention": "mid_block_add_attention",
    "quant_conv": "use_quant_conv",
    "scaling_factor": "scaling_factor",
}
PIPELINE = {  # what else pipelines read, and what it is where VAEConfig.pipeline does not say
    "sample_size": 64,
    "force_upcast": False,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
}


def to_diffusers(vae: ConvVAE, sample_size: int | None = None) -> AutoencoderKL:
    """The same weights as an AutoencoderKL, with the same dtype, device and scaling factor.

    The AutoencoderKL takes and gives pictures in [-1, 1].  sample_size: side in pixels of the
    pictures it was trained on, by default 64 or what the configuration says; with tiling on, larger
    ones are cut into tiles of that size.  CourseError for what AutoencoderKL does not have, such as
    several heads, patches or a linear shortcut.
    """
    vae = getattr(vae, "_orig_mod", vae)  # what torch.compile wraps
    fields = library_fields(vae, sample_size)
    if vae.config.heads != 1:
        raise CourseError(
            f"AutoencoderKL attends with one head and this ConvVAE has {vae.config.heads}: "
            "use DiffusersVAE."
        )
    if vae.config.patch != 1 or vae.config.linear_shortcut:
        what = "a linear shortcut" if vae.config.linear_shortcut else "patches of pixels"
        raise CourseError(
            f"AutoencoderKL has no place for {what}, and this ConvVAE has that: use DiffusersVAE, "
            "or train one without (train_vae --plain)."
        )
    levels = len(vae.config.channels)
    with torch.device("meta"):  # the weights are given, not drawn
        autoencoder = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            use_post_quant_conv=vae.config.quant_conv,
            **fields,
        )
    weights = {unwrapped(key): value for key, value in vae.state_dict().items()}
    return with_weights(autoencoder, vae, rename(weights, DIFFUSERS, to_ours=False))


def library_fields(vae: ConvVAE, sample_size: int | None) -> dict:
    """The configuration of a ConvVAE under diffusers' names.

    CourseError for another module, and for a sample_size or patch that no pipeline can have.
    """
    config = getattr(vae, "config", None)
    others = isinstance(vae, ConvVAE) and (
        type(vae).encode is not ConvVAE.encode or type(vae).decode is not ConvVAE.decode
    )
    if others or not all(hasattr(config, name) for name in FIELDS):
        raise CourseError(
            f"AutoencoderKL computes what a ConvVAE does, and this {type(vae).__name__} is another "
            "network: derive from DiffusersVAE, and let `build` make it."
        )
    fields = PIPELINE | config.pipeline
    if sample_size is not None:
        fields["sample_size"] = sample_size
    side = fields["sample_size"]
    if not isinstance(side, int) or side < 1 or side % config.factor:
        raise CourseError(
            f"sample_size is {side!r}; it is a number of pixels that {config.factor} divides, such "
            f"as {64 * config.factor}."
        )
    if config.patch.bit_count() != 1:
        raise CourseError(
            f"Pipelines count how often a picture is halved, and a patch of {config.patch} pixels "
            "is no power of 2."
        )
    fields |= {theirs: getattr(config, ours) for ours, theirs in FIELDS.items()}
    # pipelines count the levels: a patch stands for those that would halve the picture as often
    halvings = config.patch.bit_length() - 1
    return fields | {"block_out_channels": config.channels[:1] * halvings + config.channels}


def from_diffusers(autoencoder: nn.Module) -> ConvVAE:
    """The same weights as a ConvVAE, with the same dtype, device and scaling factor.

    autoencoder: an AutoencoderKL, or a DiffusersVAE around a ConvVAE.  What only pipelines read is
    kept for the way back.  The ConvVAE takes and gives pictures in [0, 1].  CourseError where the
    autoencoder is another one, or built of parts that a ConvVAE does not have.
    """
    autoencoder = getattr(autoencoder, "_orig_mod", autoencoder)
    network = getattr(autoencoder, "network", None)  # of a DiffusersVAE
    if not isinstance(autoencoder, AutoencoderKL) and not isinstance(network, ConvVAE):
        raise CourseError(
            f"A ConvVAE has the weights of an AutoencoderKL, and this is a "
            f"{type(autoencoder).__name__}."
        )
    config = autoencoder.config
    if network is None:
        _check_parts(config)
        fields = {ours: config[theirs] for ours, theirs in FIELDS.items()}
    else:
        fields = vars(network.config) | {"scaling_factor": config.scaling_factor}
    fields["pipeline"] = {
        name: config[name]
        for name, usual in PIPELINE.items()
        if config.get(name, usual) not in (None, usual)
    }
    source = autoencoder if network is None else network
    with torch.device("meta"):
        vae = ConvVAE(VAEConfig(**fields))
    return with_weights(vae, source, rename_keys(source.state_dict()))


def _check_parts(config: dict) -> None:
    """CourseError unless an AutoencoderKL of this configuration can be a ConvVAE."""
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


def with_weights(
    model: nn.Module, source: nn.Module, weights: dict[str, torch.Tensor]
) -> nn.Module:
    """`model` with copies of `weights` (dtype and device too), in the mode of `source`.

    CourseError where they do not fit.
    """
    copies = {key: value.clone() for key, value in weights.items()}
    try:
        model.load_state_dict(copies, assign=True)
    except RuntimeError as error:  # its first line says what was loaded, the second what is wrong
        fault = " ".join(str(error).splitlines()[1].split()).rstrip(".")
        raise CourseError(
            f"The weights of this {type(source).__name__} are not what its configuration says "
            f"({fault})."
        ) from error
    return model.train(source.training)
