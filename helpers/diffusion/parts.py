"""The parts of a tiny Stable Diffusion, and the pipeline of them (notebook 10).

Tokenizer, text encoder, UNet and scheduler are the libraries' own, small and fresh; with the
course's VAE they make a StableDiffusionPipeline.  diffusers and transformers are imported only
where they are used, because that takes seconds.
"""

import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from helpers import CourseError
from helpers.env import ROOT

TINY_SD = ROOT / "data" / "checkpoints" / "tiny-sd"  # the pipeline that comes with the course
PROMPT_TOKENS = 16  # a caption has eight words, and a first and a last token
END_OF_WORD = "</w>"
NUM_TRAIN_TIMESTEPS = 1000  # from hardly any noise to hardly anything else, as Stable Diffusion has


def make_tokenizer(captions: Sequence[str]):
    """A CLIPTokenizer whose vocabulary is learned from `captions`: each word becomes one token.

    Other words are read in pieces, at worst letter by letter; whatever is no small letter is read
    as the end.
    """
    from transformers import CLIPTokenizer

    letters = [letter + end for end in ("", END_OF_WORD) for letter in string.ascii_lowercase]
    pairs = learn_merges(Counter(word for text in captions for word in text.split()))
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *map("".join, pairs)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=PROMPT_TOKENS)


def learn_merges(words: Counter) -> list[tuple[str, str]]:
    """Byte pair encoding: the pairs to join, in their order; words: how often each one occurs.

    The most frequent pair of neighbours is joined, again and again, until every word is one piece.
    Written out, because the `tokenizers` library breaks ties at random.
    Sennrich, Haddow & Birch 2016, algorithm 1.
    """
    split = {word: (*word[:-1], word[-1] + END_OF_WORD) for word in words}
    pairs = []
    while True:
        counts = Counter()
        for word, pieces in split.items():
            for pair in zip(pieces, pieces[1:], strict=False):
                counts[pair] += words[word]
        if not counts:
            return pairs
        pairs.append(max(sorted(counts), key=counts.get))  # of equals the first in the alphabet
        split = {word: _joined(pieces, pairs[-1]) for word, pieces in split.items()}


def _joined(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`pieces` with every occurrence of `pair` made one."""
    done = []
    for piece in pieces:
        if done and (done[-1], piece) == pair:
            done[-1] += piece
        else:
            done.append(piece)
    return tuple(done)


def tokenize(tokenizer, texts: list[str]) -> torch.Tensor:
    """The tokens of each text, int64 (N, PROMPT_TOKENS), filled up and cut off as in a pipeline."""
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def make_text_encoder(tokenizer, width: int = 96, layers: int = 0):
    """A CLIPTextModel: prompts (B, T) → one vector for each token, (B, T, width).

    The vector is its word's plus its place's, and `layers` mix those of a prompt.  By default there
    are none: a mixed "pointy" is another vector in each sentence, and fresh layers add so much of
    the same to "pointy" and "floppy" that ears are learned last, and that combinations of words
    which training did not have are drawn less well.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def make_unet(
    text_width: int = 96,
    latent_channels: int = 4,
    sample_size: int = 8,
    channels: tuple[int, ...] = (48, 80, 128),
):
    """A UNet2DConditionModel: what it makes of noisy latents is the velocity.

    (noisy (B, latent_channels, h, w), timesteps (B,), words (B, T, width)) → (B, latent_channels,
    h, w).  It attends to words, and to other places, on all levels.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=4,  # the number of heads, despite its name
        norm_num_groups=8,
    )


def make_noise_scheduler():
    """Stable Diffusion 2's DDIM: how much noise each timestep has, and how to take it off again."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def make_pipeline(vae, text_encoder, tokenizer, unet):
    """The library's StableDiffusionPipeline of our parts, in eval mode.

    vae: an AutoencoderKL or a DiffusersVAE.
    """
    from helpers.diffusers_bridge import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=make_noise_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(
    pipeline, prompts: list[str], steps: int = 20, guidance: float = 3.0, seed: int = 0
) -> torch.Tensor:
    """One picture per prompt, (N, 3, R, R) in [0, 1], on the CPU.

    Picture i depends on its prompt, the seed and i alone.  CourseError where the pipeline's VAE
    does not fit its UNet.
    """
    from helpers.diffusers_bridge import check_vae

    check_vae(pipeline)
    noise = [torch.Generator().manual_seed(1000 * seed + i) for i in range(len(prompts))]
    settings = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "pt"}
    return pipeline(list(prompts), generator=noise, **settings).images.float().cpu()


def load_tiny_sd(folder: Path = TINY_SD):
    """The pipeline that comes with the course, or another one that `save_pretrained` wrote."""
    # the bridge has to be imported: diffusers does not find a DiffusersVAE by itself
    from helpers.diffusers_bridge import StableDiffusionPipeline

    if not (folder / "model_index.json").exists():
        raise CourseError(
            f"There is no pipeline in {folder.name}: `git checkout data/checkpoints` or "
            "`make bench` brings it."
        )
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
