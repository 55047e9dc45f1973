"""What other programs call the weights of Stable Diffusion's autoencoder (notebook 9)."""

import re

import torch

from helpers import CourseError

# Which part of ours is which part of theirs; I and J are numbers.
# What stands in no table has the same name in both.
DIFFUSERS = {
    "encoder.stages.I.blocks.J": "encoder.down_blocks.I.resnets.J",
    "encoder.stages.I.resample": "encoder.down_blocks.I.downsamplers.0",
    "decoder.stages.I.blocks.J": "decoder.up_blocks.I.resnets.J",
    "decoder.stages.I.resample": "decoder.up_blocks.I.upsamplers.0",
    "shortcut": "conv_shortcut",
    "mid.res1": "mid_block.resnets.0",
    "mid.res2": "mid_block.resnets.1",
    "mid.attn.norm": "mid_block.attentions.0.group_norm",
    "mid.attn.q": "mid_block.attentions.0.to_q",
    "mid.attn.k": "mid_block.attentions.0.to_k",
    "mid.attn.v": "mid_block.attentions.0.to_v",
    "mid.attn.out": "mid_block.attentions.0.to_out.0",
    "norm_out": "conv_norm_out",
    "to_moments": "quant_conv",
    "from_latent": "post_quant_conv",
}
OLDER_DIFFUSERS = DIFFUSERS | {  # files saved before diffusers 0.12
    "mid.attn.q": "mid_block.attentions.0.query",
    "mid.attn.k": "mid_block.attentions.0.key",
    "mid.attn.v": "mid_block.attentions.0.value",
    "mid.attn.out": "mid_block.attentions.0.proj_attn",
}
COMPVIS = {  # Stable Diffusion's authors; their `up` counts from high resolution to low
    "encoder.stages.I.blocks.J": "encoder.down.I.block.J",
    "encoder.stages.I.resample": "encoder.down.I.downsample",
    "decoder.stages.I.blocks.J": "decoder.up.I.block.J",
    "decoder.stages.I.resample": "decoder.up.I.upsample",
    "shortcut": "nin_shortcut",
    "mid.res1": "mid.block_1",
    "mid.res2": "mid.block_2",
    "mid.attn.norm": "mid.attn_1.norm",
    "mid.attn.q": "mid.attn_1.q",
    "mid.attn.k": "mid.attn_1.k",
    "mid.attn.v": "mid.attn_1.v",
    "mid.attn.out": "mid.attn_1.proj_out",
    "to_moments": "quant_conv",
    "from_latent": "post_quant_conv",
}
PREFIX = "first_stage_model."  # of the VAE in a whole Stable Diffusion checkpoint


def rename_keys(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ConvVAE's weights out of those of an AutoencoderKL: diffusers', old or new, or CompVis'.

    Of a whole Stable Diffusion checkpoint the VAE is taken, of a training checkpoint all but the
    loss.  CourseError where neither is recognised.
    """
    if any(key.startswith(PREFIX) for key in weights):
        inner = {key: value for key, value in weights.items() if key.startswith(PREFIX)}
        weights = {key.removeprefix(PREFIX): value for key, value in inner.items()}
    of_training = ("loss.", "model_ema.")
    weights = {key: value for key, value in weights.items() if not key.startswith(of_training)}

    if any(".down_blocks." in key for key in weights):
        is_older = any(".query." in key for key in weights)
        return rename(weights, OLDER_DIFFUSERS if is_older else DIFFUSERS)
    if any(".down." in key for key in weights):
        return rename(_turned(weights), COMPVIS)
    first = next(iter(weights), "nothing")
    raise CourseError(
        f"These are not the weights of an AutoencoderKL: the first of them is {first}."
    )


def _turned(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CompVis' weights with the decoder's levels counted as ours, from low resolution to high.

    Attention made of 1×1 convolutions (C, C, 1, 1) becomes matrices (C, C).
    """
    last = max(int(key.split(".")[2]) for key in weights if key.startswith("decoder.up."))
    turned = {}
    for key, value in weights.items():
        key = re.sub(r"^decoder\.up\.(\d+)", lambda m: f"decoder.up.{last - int(m[1])}", key)
        is_convolution = ".attn_1." in key and value.dim() == 4
        turned[key] = value[:, :, 0, 0] if is_convolution else value
    return turned


def rename(
    weights: dict[str, torch.Tensor], table: dict[str, str], to_ours: bool = True
) -> dict[str, torch.Tensor]:
    """The weights under other names: in each key, the parts that `table` knows are replaced.

    Only whole names count: norm_out is no part of conv_norm_out.
    """
    rules = []
    for ours, theirs in table.items():
        old, new = (theirs, ours) if to_ours else (ours, theirs)
        pattern = re.escape(old).replace("I", r"(?P<I>\d+)").replace("J", r"(?P<J>\d+)")
        whole = re.compile(rf"(?<![^.]){pattern}(?![^.])")
        rules.append((whole, re.sub(r"([IJ])", r"\\g<\1>", new)))

    renamed = {}
    for key, value in weights.items():
        for pattern, new in rules:
            key = pattern.sub(new, key)
        renamed[key] = value
    return renamed
