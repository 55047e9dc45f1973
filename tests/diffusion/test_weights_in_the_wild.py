"""Weight files as people have them: what is Stable Diffusion's loads, what is not is refused."""

from collections.abc import Callable
from functools import cache

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from helpers import CourseError
from helpers.diffusers_bridge import from_diffusers, to_diffusers
from helpers.diffusion.weight_names import rename_keys
from helpers.models.conv_vae import ConvVAE, VAEConfig
from tests.diffusion.small_models import pictures, randomised
from tests.diffusion.test_weight_names import compvis

SD = VAEConfig((8, 16, 16), latent_channels=4, blocks=2, groups=4)  # and SDXL: the same names
SD3 = VAEConfig((8, 16, 16), latent_channels=16, blocks=2, groups=4, quant_conv=False)  # and FLUX

Weights = dict[str, torch.Tensor]


def newer_compvis(weights: Weights) -> Weights:
    """CompVis' layout with diffusers' attention, as some programs that convert leave it."""
    names = {"attn_1.q.": "attn_1.to_q.", "attn_1.k.": "attn_1.to_k.", "attn_1.v.": "attn_1.to_v."}
    names["attn_1.proj_out."] = "attn_1.to_out.0."
    for old, new in names.items():
        weights = {key.replace(old, new): value for key, value in weights.items()}
    return weights


def squeezed(weights: Weights) -> Weights:
    """Attention as matrices under CompVis' names, which trainers of the community write."""
    return {k: v[:, :, 0, 0] if ".attn_1." in k and v.dim() == 4 else v for k, v in weights.items()}


def older_diffusers(weights: Weights) -> Weights:
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in names.items():
        weights = {key.replace(f".{new}.", f".{old}."): value for key, value in weights.items()}
    return weights


def same(weights: Weights) -> Weights:
    return weights


def behind(prefix: str, **others: torch.Tensor) -> Callable[[Weights], Weights]:
    return lambda weights: {f"{prefix}{key}": value for key, value in weights.items()} | others


UNET = {"model.diffusion_model.out.2.bias": torch.zeros(4)}
CLIP = {"cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.bias": torch.zeros(4)}
DIALECTS = {  # name → (configuration, is it CompVis' layout, what was done to the names)
    "CompVis, bare": (SD, True, same),
    "CompVis, whole Stable Diffusion 1": (SD, True, behind("first_stage_model.", **UNET, **CLIP)),
    "CompVis, its training": (SD, True, behind("", **{"loss.logvar": torch.zeros(())})),
    "a trainer around the whole model": (SD, True, behind("model.first_stage_model.", **UNET)),
    "CompVis, new attention": (SD, True, newer_compvis),
    "CompVis, attention of matrices": (SD, True, squeezed),
    "SD3, whole": (SD3, True, behind("first_stage_model.")),
    "FLUX, bare": (SD3, True, same),
    "diffusers, new": (SD, False, same),
    "diffusers, old": (SD, False, older_diffusers),
    "SD3, diffusers": (SD3, False, same),
    "vae.": (SD, False, behind("vae.")),
    "autoencoder.": (SD, True, behind("autoencoder.")),
    "DataParallel": (SD, False, behind("module.")),
    "torch.compile": (SD, False, behind("_orig_mod.")),
    "both": (SD, False, behind("module._orig_mod.")),
}


@pytest.mark.parametrize("name", DIALECTS)
@torch.no_grad()
def test_what_has_the_shape_of_stable_diffusions_computes_what_the_library_computes(name):
    config, is_compvis, changed = DIALECTS[name]
    source = randomised(ConvVAE(config))
    library = to_diffusers(source)
    bare = compvis(source) if is_compvis else dict(library.state_dict())
    if is_compvis:  # the library's own conversion, and not ours, says what these names mean
        library.load_state_dict(convert_ldm_vae_checkpoint(bare, dict(library.config)))

    ours = ConvVAE(config).eval()
    ours.load_state_dict(rename_keys(changed(bare)))
    x = pictures(1, 16, 24)
    posterior = library.encode(x).latent_dist
    torch.testing.assert_close(ours.encode((x + 1) / 2).mean, posterior.mean, rtol=0, atol=1e-5)
    decoded = library.decode(posterior.mean).sample
    torch.testing.assert_close(2 * ours.decode(posterior.mean) - 1, decoded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("dialect", ["CompVis", "diffusers"])
def test_a_file_of_one_half(part, dialect):
    vae = ConvVAE(SD)
    whole = compvis(vae) if dialect == "CompVis" else to_diffusers(vae).state_dict()
    half = rename_keys({key: value for key, value in whole.items() if key.startswith(part)})
    assert half.keys() == {key for key in vae.state_dict() if key.startswith(part)}
    assert all(torch.equal(half[key], vae.state_dict()[key]) for key in half)


def test_fused_projections_are_left_out():
    library = to_diffusers(randomised(ConvVAE(SD)))
    before = rename_keys(library.state_dict())
    library.fuse_qkv_projections()
    assert any("to_qkv" in key for key in library.state_dict())
    after = from_diffusers(library).state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("name", ["state_dict", "params_ema"])
def test_the_dictionary_of_a_training_says_where_its_weights_are(name):
    with pytest.raises(CourseError, match=rf'hand over what is in \["{name}"\]'):
        rename_keys({"epoch": 3, name: compvis(ConvVAE(SD))})


def test_several_autoencoders_are_not_mixed():
    weights = to_diffusers(ConvVAE(SD)).state_dict()
    two = behind("vae.")(weights) | behind("ema.")(weights)
    with pytest.raises(CourseError, match=r"several autoencoders .* 'ema\.' and 'vae\.'"):
        rename_keys(two)


def library_keys(name: str, **arguments) -> Weights:
    with torch.device("meta"):
        return getattr(diffusers, name)(**arguments).state_dict()


def beside(weights: Weights, *keys: str) -> Weights:
    return weights | {key: torch.zeros(4) for key in keys}


@cache
def foreign() -> dict[str, tuple[Weights, str]]:
    """{what: (its weights, what the sentence calls it)}; names as the library or the authors do."""
    bare = compvis(ConvVAE(SD))
    sizes = {"block_out_channels": (32,), "layers_per_block": 1}
    video = {"block_out_channels": (32, 64), "layers_per_block": 1}
    asymmetric = {f"{half}_block_out_channels": (32,) for half in ("down", "up")}
    asymmetric |= {f"layers_per_{half}_block": 1 for half in ("down", "up")}
    return {
        "kl-f16": (beside(bare, "encoder.down.2.attn.0.norm.weight"), "attends on several levels"),
        "VQ, CompVis": (beside(bare, "quantize.embedding.weight"), "a VQ model"),
        "VQ, diffusers": (library_keys("VQModel", **sizes), "a VQ model"),
        "SVD": (
            library_keys(
                "AutoencoderKLTemporalDecoder",
                down_block_types=("DownEncoderBlock2D",) * 2,
                **video,
            ),
            "Stable Video Diffusion",
        ),
        "SVD, authors'": (
            beside(bare, "decoder.up.0.block.0.time_stack.in_layers.0.weight"),
            "Stable Video Diffusion",
        ),
        "TAESD, diffusers": (library_keys("AutoencoderTiny"), "TAESD"),
        "TAESD, author's": ({"0.weight": torch.zeros(64, 3, 3, 3)}, "TAESD"),
        "asymmetric": (library_keys("AsymmetricAutoencoderKL", **asymmetric), "asymmetric"),
        "FLUX.2": (beside(to_diffusers(ConvVAE(SD)).state_dict(), "bn.running_mean"), "FLUX.2"),
        "LoRA": (
            beside(
                {
                    key.replace(".to_q.", ".to_q.base_layer."): value
                    for key, value in to_diffusers(ConvVAE(SD)).state_dict().items()
                },
                "encoder.mid_block.attentions.0.to_q.lora_A.default.weight",
            ),
            "a LoRA adapter",
        ),
        "video": ({"encoder.conv_in.conv.weight": torch.zeros(8, 3, 3, 3, 3)}, "a video auto"),
        "a classifier": ({"fc1.weight": torch.zeros(2, 2)}, "it has no fc1.weight"),
    }


@pytest.mark.parametrize("name", foreign())
def test_every_other_network_is_refused_by_name(name):
    weights, called = foreign()[name]
    with pytest.raises(CourseError) as error:
        rename_keys(weights)
    sentence = str(error.value)
    named = sentence.partition("it has no ")[2].rstrip(".").partition(";")[0]
    assert called in sentence and named in weights and "\n" not in sentence


OTHERS = {
    "AutoencoderTiny": {},
    "VQModel": {"block_out_channels": (32,), "layers_per_block": 1},
    "AsymmetricAutoencoderKL": {},
    "AutoencoderKLTemporalDecoder": {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
    },
    "AutoencoderKLFlux2": {},
}


@pytest.mark.parametrize("name", OTHERS)
def test_from_diffusers_takes_no_other_class(name):
    if not hasattr(diffusers, name):
        pytest.skip(f"this diffusers has no {name} yet")
    with torch.device("meta"):
        other = getattr(diffusers, name)(**OTHERS[name])
    with pytest.raises(CourseError, match=f"and this is a {name}"):
        from_diffusers(other)


def test_weights_that_are_not_what_the_configuration_says_are_one_sentence():
    class Wider(ConvVAE):
        def __init__(self):
            super().__init__(SD)
            self.encoder.conv_in = torch.nn.Conv2d(48, 8, 3, padding=1)

    with pytest.raises(CourseError, match=r"this Wider .*conv_in.weight") as error:
        to_diffusers(Wider())
    assert "\n" not in str(error.value)


class TestWhatPipelinesReadStays:
    FIELDS = {
        "SDXL": {"scaling_factor": 0.13025, "force_upcast": True, "sample_size": 1024},
        "SD3": {"scaling_factor": 1.5305, "shift_factor": 0.0609},
        "Playground": {
            "scaling_factor": 0.5,
            "latents_mean": [-1.6574, 1.886, -1.383, 2.5155],
            "latents_std": [8.4927, 5.9022, 6.5498, 5.2299],
        },
    }

    @pytest.mark.parametrize("name", FIELDS)
    def test_there_and_back(self, name, tmp_path):
        fields = self.FIELDS[name]
        config = dict(to_diffusers(ConvVAE(SD)).config)
        config.pop("_use_default_values", None)  # these would win over the fields
        library = AutoencoderKL.from_config(config | fields)
        back = to_diffusers(from_diffusers(library))
        back.save_pretrained(tmp_path)
        loaded = AutoencoderKL.from_pretrained(tmp_path).config
        for field in ("force_upcast", "shift_factor", "latents_mean", "latents_std", "sample_size"):
            assert loaded[field] == library.config[field], field
        assert {name: loaded[name] for name in fields} == fields


@pytest.mark.parametrize("side", [0, -64, 66, 64.0, "64", None], ids=str)
def test_the_sample_size_is_checked(side):
    vae = ConvVAE(SD)
    if side is None:
        assert to_diffusers(vae).config.sample_size == 64
        return
    with pytest.raises(CourseError, match="it is a number of pixels that 4 divides"):
        to_diffusers(vae, sample_size=side)


def test_compiled_networks_are_converted():
    vae = randomised(ConvVAE(SD))
    theirs = to_diffusers(torch.compile(vae))  # nothing is compiled before the first call
    back = from_diffusers(torch.compile(theirs))
    assert all(torch.equal(back.state_dict()[k], v) for k, v in vae.state_dict().items())
