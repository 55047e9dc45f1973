"""The parts of the tiny Stable Diffusion: its words, its networks, and what a pipeline of them does."""

from collections import Counter

import pytest
import torch

from helpers import CourseError
from helpers.data.synthetic_dogs import COATS, EARS, GROUNDS, caption
from helpers.diffusion.parts import (
    NUM_TRAIN_TIMESTEPS,
    PROMPT_TOKENS,
    learn_merges,
    load_tiny_sd,
    make_noise_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    sample,
    tokenize,
)
from tests.test_diffusers_bridge import randomised

CAPTIONS = [caption(coat, ears, ground) for coat in COATS for ears in EARS for ground in GROUNDS]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(CAPTIONS)


def test_pairs_by_hand():
    """«aab» three times, «ab» once: (a, b) four times, then (a, ab) three times."""
    assert learn_merges(Counter({"aab": 3, "ab": 1})) == [("a", "b</w>"), ("a", "ab</w>")]
    assert learn_merges(Counter({"a": 5})) == []


def test_ties_are_broken_by_the_alphabet():
    assert learn_merges(Counter({"xy": 1, "ab": 1})) == [("a", "b</w>"), ("x", "y</w>")]
    assert learn_merges(Counter({"ab": 1, "xy": 1})) == [("a", "b</w>"), ("x", "y</w>")]


def test_repeated_letters_are_joined_from_the_left():
    assert learn_merges(Counter({"aaaa": 1})) == [("a", "a"), ("a", "a</w>"), ("aa", "aa</w>")]


def test_every_word_of_a_caption_is_one_token(tokenizer):
    numbers = {word: tokenizer(word).input_ids for text in CAPTIONS for word in text.split()}
    assert all(len(ids) == 3 for ids in numbers.values())  # a first and a last token around it
    assert len({ids[1] for ids in numbers.values()}) == len(numbers) == 18


def test_tokens_read_back_as_the_caption(tokenizer):
    for text in CAPTIONS:
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).strip() == text


def test_other_words_are_read_in_pieces(tokenizer):
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("a purple cat").input_ids)
    assert "".join(pieces[1:-1]).replace("</w>", " ") == "a purple cat " and len(pieces) > 5
    assert tokenizer.unk_token_id not in tokenizer("zebra quiz fox").input_ids[1:-1]


def test_prompts_are_filled_up_and_cut_off(tokenizer):
    tokens = tokenize(tokenizer, ["", "a dog", "a dog " * 20])
    assert tokens.shape == (3, PROMPT_TOKENS) and tokens.dtype == torch.int64
    assert (tokens[:, 0] == tokenizer.bos_token_id).all() and (
        tokens[:, -1] == tokenizer.eos_token_id
    ).all()


def test_the_tokenizer_is_the_same_every_time_and_after_saving(tokenizer, tmp_path):
    again = make_tokenizer(CAPTIONS[::-1])
    assert again.get_vocab() == tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    assert torch.equal(tokenize(loaded, CAPTIONS), tokenize(tokenizer, CAPTIONS))


def test_the_text_encoder_tells_prompts_apart(tokenizer):
    words = make_text_encoder(tokenizer, width=16)(tokenize(tokenizer, CAPTIONS[:2]))[0]
    assert words.shape == (2, PROMPT_TOKENS, 16) and not torch.allclose(words[0], words[1])


def test_layers_blur_words_and_the_default_has_none(tokenizer):
    floppy, pointy = (f"a red dog with {ears} ears on snow" for ears in ("floppy", "pointy"))
    apart = {}
    for name, asked in {"none": {}, "two": {"layers": 2}}.items():
        torch.manual_seed(0)
        one, other = make_text_encoder(tokenizer, **asked).eval()(
            tokenize(tokenizer, [floppy, pointy])
        )[0]
        assert torch.equal(one[:5], other[:5])  # a word is told nothing of those after it
        assert torch.equal(one[6:], other[6:]) == (
            name == "none"
        )  # and of those before it only by layers
        apart[name] = ((one - other)[5].norm() / one[5].norm()).item()
    assert apart["none"] > 0.9 and apart["two"] < 0.6


def test_the_unet_keeps_the_shape_of_latents_and_listens_to_words():
    unet = randomised(make_unet(text_width=16, latent_channels=3, channels=(16, 32)))
    z, words = torch.randn(2, 3, 8, 12), torch.randn(2, 5, 16)
    out = unet(z, torch.tensor([3, 900]), words).sample
    assert out.shape == z.shape and not torch.allclose(
        out, unet(z, torch.tensor([3, 900]), words + 1).sample
    )


def test_the_unet_listens_at_its_first_level():
    unet = randomised(make_unet(text_width=16, latent_channels=3, channels=(16, 32)))
    heard, at = [], torch.tensor([3])
    unet.down_blocks[0].register_forward_hook(lambda module, given, found: heard.append(found[0]))
    for words in torch.randn(2, 1, 5, 16):
        unet(torch.ones(1, 3, 8, 8), at, words)
    assert not torch.allclose(*heard)


def test_the_scheduler_is_stable_diffusions():
    scheduler = make_noise_scheduler()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, NUM_TRAIN_TIMESTEPS, dtype=torch.float64) ** 2
    torch.testing.assert_close(
        scheduler.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-4, atol=0
    )
    config = scheduler.config
    assert (config.clip_sample, config.set_alpha_to_one, config.steps_offset) == (False, False, 1)


def test_a_picture_depends_on_its_prompt_seed_and_place_alone():
    from helpers.diffusers_bridge import to_diffusers
    from tests.test_diffusers_vae import PROMPTS, one_head, pipeline_of

    pipeline = pipeline_of(to_diffusers(one_head()))
    two = sample(pipeline, PROMPTS, steps=2)
    torch.testing.assert_close(sample(pipeline, PROMPTS[:1], steps=2), two[:1], rtol=0, atol=1e-5)
    assert not torch.allclose(sample(pipeline, PROMPTS, steps=2, seed=1), two)
    same = sample(pipeline, PROMPTS[:1] * 2, steps=2)
    assert not torch.allclose(same[0], same[1])
    assert not torch.allclose(
        same[1:], sample(pipeline, PROMPTS[:1], steps=2, seed=1)
    )  # seeds share no noise


def test_a_missing_pipeline_is_named(tmp_path):
    with pytest.raises(
        CourseError, match="There is no pipeline in nothing: `git checkout data/checkpoints`"
    ):
        load_tiny_sd(tmp_path / "nothing")
