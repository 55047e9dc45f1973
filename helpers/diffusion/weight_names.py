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
# other names of the attention's projections: diffusers' before 0.17, and in converted CompVis files
NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OLD_ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OTHERS = {  # where a foreign key is found in what it belongs to
    r"quantize\.|\.codebook": "a VQ model, whose latents are symbols",
    r"lora_|\.base_layer\.": "a LoRA adapter; merge it into the weights, or remove it, first",
    r"temporal_|time_|spatial_res_block": "the video decoder of Stable Video Diffusion",
    r"^bn\.running_": "FLUX.2's autoencoder, which normalises its latents",
    r"(down|up)\.\d+\.attn\.|(down|up)_blocks\.\d+\.attentions\.": "a network that attends on "
    "several levels, as kl-f16 and kl-f32 do",
    r"condition_encoder\.|\.up_layers\.": "the asymmetric autoencoder, which sees the mask",
    r"(encoder|decoder)\.layers\.\d|^\d+\.|^taesd_": "TAESD, a tiny network of another kind",
    r"conv_in\.conv\.": "a video autoencoder with convolutions over time",
}
# of an autoencoder: `vae.`, `first_stage_model.`, `model.first_stage_model.`, `autoencoder.` …
PREFIXED = re.compile(r"^(|.*?\.)(?:encoder|decoder)\.conv_in\.weight$")
OF_TRAINING = ("loss.", "model_ema.", "discriminator.")  # beside the weights, in a training's file
COMPVIS_ONLY = re.compile(r"\.(down|up)\.\d+\.|\.mid\.(block_|attn_1\.)")
LAYER = r"(norm1|conv1|norm2|conv2|shortcut)"
OURS = re.compile(
    r"((encoder|decoder)\.(conv_in|conv_out|norm_out"
    rf"|stages\.\d+\.(blocks\.\d+\.{LAYER}|resample\.conv)"
    rf"|mid\.(res[12]\.{LAYER}|attn\.(norm|q|k|v|out)))"
    r"|to_moments|from_latent|linear\.(encode|decode))\.(weight|bias)"
)


def rename_keys(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ConvVAE's weights out of those of an AutoencoderKL: diffusers', old or new, or CompVis'.

    Any prefix goes, `torch.compile`'s and DataParallel's too; of a whole Stable Diffusion the
    autoencoder is taken, of a training checkpoint all but the loss.  A file of the encoder or the
    decoder alone gives the weights of that part.  CourseError, which names the first foreign key,
    where the weights are those of another network.
    """
    for name, value in weights.items():
        if isinstance(value, dict):  # what a training program pickles
            raise CourseError(f'This holds more than weights: hand over what is in ["{name}"].')
    weights = _without_prefix({unwrapped(key): value for key, value in weights.items()})
    weights = {key: value for key, value in weights.items() if not key.startswith(OF_TRAINING)}
    weights = {_usual(key): value for key, value in weights.items()}
    weights = {key: value for key, value in weights.items() if ".to_qkv." not in key}  # a copy

    is_compvis = any(COMPVIS_ONLY.search(key) for key in weights)
    renamed = rename(_turned(weights), COMPVIS) if is_compvis else rename(weights, DIFFUSERS)
    for key, given in zip(renamed, weights):
        if not OURS.fullmatch(key):
            raise CourseError(_refusal(given, weights))
    if not renamed:
        raise CourseError("These are not the weights of an AutoencoderKL: there are none.")
    return renamed


def unwrapped(key: str) -> str:
    """A key without the names that `torch.compile` and DataParallel put between."""
    return re.sub(r"(?<![^.])(_orig_mod|module)\.", "", str(key))


def _without_prefix(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the autoencoder among them, without what stands before encoder and decoder."""
    found = {match[1] for match in map(PREFIXED.match, weights) if match}
    if len(found) > 1:
        names = " and ".join(repr(prefix) for prefix in sorted(found))
        raise CourseError(
            f"There are several autoencoders in these weights, under {names}: hand over the keys "
            "of one."
        )
    prefix = found.pop() if found else ""
    inner = {key: value for key, value in weights.items() if key.startswith(prefix)}
    return {key.removeprefix(prefix): value for key, value in inner.items()}


def _usual(key: str) -> str:
    """A key with the attention's projections as the table of its dialect has them."""
    for block, names in (("mid_block.attentions.0", NEW_ATTENTION), ("mid.attn_1", OLD_ATTENTION)):
        for other, usual in names.items():
            key = key.replace(f".{block}.{other}.", f".{block}.{usual}.")
    return key


def _turned(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CompVis' weights with the decoder's levels counted as ours, from low resolution to high.

    Attention made of 1×1 convolutions (C, C, 1, 1) becomes matrices (C, C).
    """
    levels = [int(found[1]) for key in weights if (found := re.match(r"decoder\.up\.(\d+)", key))]
    last = max(levels, default=0)
    turned = {}
    for key, value in weights.items():
        key = re.sub(r"^decoder\.up\.(\d+)", lambda m: f"decoder.up.{last - int(m[1])}", key)
        is_convolution = ".attn_1." in key and value.dim() == 4
        turned[key] = value[:, :, 0, 0] if is_convolution else value
    return turned


def _refusal(key: str, weights: dict[str, torch.Tensor]) -> str:
    """Why weights with this key are no ConvVAE's, and whose they are where that is known."""
    sentence = f"These are not the weights of an AutoencoderKL: it has no {key}"
    for pattern, kind in OTHERS.items():
        if any(re.search(pattern, key) for key in weights):
            return f"{sentence}; they look like those of {kind}."
    return f"{sentence}."


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
