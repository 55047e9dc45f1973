"""rename_keys: three dialects of the same weights."""

import re

import pytest
import torch

from helpers import CourseError
from helpers.diffusion.weight_names import DIFFUSERS, rename, rename_keys
from helpers.models.conv_vae import ConvVAE, VAEConfig
from tests.diffusion.small_models import CONFIGS


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def vae(request) -> ConvVAE:
    with torch.device("meta"):
        return ConvVAE(request.param)


def compvis(vae: ConvVAE) -> dict[str, torch.Tensor]:
    """The weights as CompVis writes them, put together by hand from the names in its source."""
    last = len(vae.config.channels) - 1

    def level(found: re.Match) -> str:
        """The decoder's levels count from high resolution to low."""
        return f"decoder.up.{last - int(found[1])}"

    written = {}
    for key, value in vae.state_dict().items():
        key = key.replace(".blocks.", ".block.")
        key = re.sub(r"encoder\.stages\.(\d+)", r"encoder.down.\1", key)
        key = re.sub(r"decoder\.stages\.(\d+)", level, key)
        key = re.sub(r"down\.(\d+)\.resample", r"down.\1.downsample", key)
        key = re.sub(r"up\.(\d+)\.resample", r"up.\1.upsample", key)
        key = key.replace("mid.res", "mid.block_").replace("mid.attn.out", "mid.attn_1.proj_out")
        key = key.replace("mid.attn.", "mid.attn_1.").replace("shortcut", "nin_shortcut")
        key = key.replace("to_moments", "quant_conv").replace("from_latent", "post_quant_conv")
        is_matrix = ".attn_1." in key and value.dim() == 2
        written[key] = value[:, :, None, None] if is_matrix else value
    return written


def same(weights: dict, vae: ConvVAE) -> bool:
    own = vae.state_dict()
    return weights.keys() == own.keys() and all(weights[key].shape == own[key].shape for key in own)


def test_to_diffusers_and_back(vae):
    theirs = rename(vae.state_dict(), DIFFUSERS, to_ours=False)
    assert theirs.keys() != vae.state_dict().keys() and same(rename_keys(theirs), vae)


def test_attention_of_older_diffusers(vae):
    theirs = rename(vae.state_dict(), DIFFUSERS, to_ours=False)
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in older.items():
        theirs = {key.replace(f".{new}.", f".{old}."): value for key, value in theirs.items()}
    assert same(rename_keys(theirs), vae)


def test_compvis(vae):
    assert same(rename_keys(compvis(vae)), vae)


def test_a_whole_stable_diffusion_checkpoint_and_a_training_checkpoint(vae):
    whole = {f"first_stage_model.{key}": value for key, value in compvis(vae).items()}
    whole["model.diffusion_model.out.2.bias"] = torch.zeros(4)
    whole["cond_stage_model.logit_scale"] = torch.zeros(1)
    assert same(rename_keys(whole), vae)
    training = compvis(vae)
    training["loss.logvar"] = torch.zeros(())
    training["model_ema.num_updates"] = torch.zeros(())
    assert same(rename_keys(training), vae)


def test_levels_of_the_compvis_decoder_are_turned_round():
    vae = ConvVAE(VAEConfig((8, 16, 32), groups=4, blocks=1))
    renamed = rename_keys(compvis(vae))
    for key, value in vae.state_dict().items():
        assert torch.equal(renamed[key], value), key


def test_the_arguments_stay_as_they_are():
    vae = ConvVAE(VAEConfig((8, 16), groups=4))
    weights = compvis(vae)
    before = dict(weights)
    rename_keys(weights)
    assert weights.keys() == before.keys() and all(weights[key] is before[key] for key in before)


def test_no_weights_are_refused_in_a_sentence():
    with pytest.raises(CourseError, match="not the weights of an AutoencoderKL: there are none"):
        rename_keys({})
