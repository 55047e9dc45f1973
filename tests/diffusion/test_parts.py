"""The parts of the tiny Stable Diffusion: its words, its networks, and a pipeline of them."""

from collections import Counter

import pytest
import torch

from helpers import CourseError
from helpers.classifiers.dogs import COMBINATIONS
from helpers.data.synthetic_dogs import caption
from helpers.diffusers_bridge import to_diffusers
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
from tests.diffusion.small_models import PROMPTS, one_head, pipeline_of, randomised

CAPTIONS = [caption(*combination) for combination in COMBINATIONS]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(CAPTIONS)


# --- words ---


@pytest.mark.parametrize(
    "words, pairs",
    [
        # "aab" three times, "ab" once: a-b four times, then a-ab three times
        ({"aab": 3, "ab": 1}, [("a", "b</w>"), ("a", "ab</w>")]),
        ({"a": 5}, []),
        ({"xy": 1, "ab": 1}, [("a", "b</w>"), ("x", "y</w>")]),  # a tie: the alphabet decides,
        ({"ab": 1, "xy": 1}, [("a", "b</w>"), ("x", "y</w>")]),  # not the order
        ({"aaaa": 1}, [("a", "a"), ("a", "a</w>"), ("aa", "aa</w>")]),  # joined from the left
    ],
)
def test_byte_pairs_by_hand(words, pairs):
    assert learn_merges(Counter(words)) == pairs


def test_every_word_of_a_caption_is_one_token_and_reads_back(tokenizer):
    numbers = {word: tokenizer(word).input_ids for text in CAPTIONS for word in text.split()}
    assert all(len(ids) == 3 for ids in numbers.values())  # a first and a last token around it
    assert len({ids[1] for ids in numbers.values()}) == len(numbers) == 18
    for text in CAPTIONS:
        back = tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
        assert back.strip() == text


def test_other_words_are_read_in_pieces(tokenizer):
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("a purple cat").input_ids)
    assert "".join(pieces[1:-1]).replace("</w>", " ") == "a purple cat " and len(pieces) > 5
    assert tokenizer.unk_token_id not in tokenizer("zebra quiz fox").input_ids[1:-1]


def test_prompts_are_filled_up_and_cut_off(tokenizer):
    tokens = tokenize(tokenizer, ["", "a dog", "a dog " * 20])
    assert tokens.shape == (3, PROMPT_TOKENS) and tokens.dtype == torch.int64
    assert (tokens[:, 0] == tokenizer.bos_token_id).all()
    assert (tokens[:, -1] == tokenizer.eos_token_id).all()


def test_the_tokenizer_is_the_same_every_time_and_after_saving(tokenizer, tmp_path):
    again = make_tokenizer(CAPTIONS[::-1])
    assert again.get_vocab() == tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    assert torch.equal(tokenize(loaded, CAPTIONS), tokenize(tokenizer, CAPTIONS))


# --- networks ---


def test_layers_blur_words_and_the_default_has_none(tokenizer):
    floppy, pointy = (f"a red dog with {ears} ears on snow" for ears in ("floppy", "pointy"))
    apart = {}
    for name, asked in {"none": {}, "two": {"layers": 2}}.items():
        torch.manual_seed(0)
        encoder = make_text_encoder(tokenizer, **asked).eval()
        one, other = encoder(tokenize(tokenizer, [floppy, pointy]))[0]
        assert one.shape == (PROMPT_TOKENS, 96)
        assert torch.equal(one[:5], other[:5])  # a word is told nothing of those after it
        assert torch.equal(one[6:], other[6:]) == (name == "none")  # and of those before by layers
        apart[name] = ((one - other)[5].norm() / one[5].norm()).item()
    assert apart["none"] > 0.9 and apart["two"] < 0.6


def test_the_unet_keeps_the_shape_of_latents_and_listens_to_words_from_its_first_level_on():
    unet = randomised(make_unet(text_width=16, latent_channels=3, channels=(16, 32)))
    heard = []
    unet.down_blocks[0].register_forward_hook(lambda module, given, found: heard.append(found[0]))
    z = torch.randn(2, 3, 8, 12)
    words = torch.randn(2, 5, 16)
    timesteps = torch.tensor([3, 900])
    out, other = (unet(z, timesteps, each).sample for each in (words, words + 1))
    assert out.shape == z.shape
    assert not torch.allclose(out, other) and not torch.allclose(*heard)


def test_the_scheduler_is_stable_diffusions():
    scheduler = make_noise_scheduler()
    steps = torch.linspace(0.00085**0.5, 0.012**0.5, NUM_TRAIN_TIMESTEPS, dtype=torch.float64)
    expected = (1 - steps**2).cumprod(0)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), expected, rtol=1e-4, atol=0)


# --- a pipeline ---


def test_a_picture_depends_on_its_prompt_seed_and_place_alone():
    pipeline = pipeline_of(to_diffusers(one_head()))
    two = sample(pipeline, PROMPTS, steps=2)
    torch.testing.assert_close(sample(pipeline, PROMPTS[:1], steps=2), two[:1], rtol=0, atol=1e-5)
    other = sample(pipeline, PROMPTS, steps=2, seed=1)
    assert not torch.allclose(other, two)
    first, second = sample(pipeline, PROMPTS[:1] * 2, steps=2)
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, other[0])  # seeds share no noise


def test_a_missing_pipeline_is_named(tmp_path):
    said = "There is no pipeline in nothing: `git checkout data/checkpoints`"
    with pytest.raises(CourseError, match=said):
        load_tiny_sd(tmp_path / "nothing")
