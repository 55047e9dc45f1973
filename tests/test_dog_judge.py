"""The judge of drawn dogs: its labels, its verdicts, and that it learns."""

import pytest
import torch

from helpers.budget import generator_for
from helpers.data import Batch
from helpers.dog_judge import (
    COMBINATIONS,
    FACTORS,
    DogJudge,
    adherence,
    blur_and_grain,
    combination_numbers,
    factor_labels,
    judge_loss,
    train_judge,
)
from helpers.drawn_dogs import caption, load_drawn_dogs

CAPTIONS = [caption(*combination) for combination in COMBINATIONS]


class Says(torch.nn.Module):
    """Answers with given positions, whatever it is shown."""

    def __init__(self, **answers: list[int]):
        super().__init__()
        self.answers, self.weight = answers, torch.nn.Parameter(torch.zeros(1))
        self.seen = 0

    def forward(self, x):
        part = slice(self.seen, self.seen + len(x))
        self.seen += len(x)
        return {
            name: torch.nn.functional.one_hot(torch.tensor(self.answers[name][part]), len(values)).float()
            for name, values in FACTORS.items()
        }


def test_combinations_and_captions_count_alike():
    assert len(set(COMBINATIONS)) == 48
    assert combination_numbers(CAPTIONS).tolist() == list(range(48))
    labels = factor_labels(torch.arange(48))
    for number, combination in enumerate(COMBINATIONS):
        assert tuple(FACTORS[name][labels[name][number]] for name in FACTORS) == combination


def test_labels_are_those_of_the_drawings():
    dogs = load_drawn_dogs(60, 16)
    labels = factor_labels(combination_numbers(dogs.captions))
    assert all(torch.equal(labels[name], dogs.factors[name]) for name in FACTORS)


def test_shares_are_counted_for_each_factor_and_for_all_at_once():
    texts = [caption("brown", "floppy", "grass")] * 4
    judge = Says(coat=[0, 0, 1, 1], ears=[0, 1, 0, 1], ground=[0, 0, 0, 3])
    found = adherence(judge, torch.zeros(4, 3, 64, 64), texts)
    assert found == {"coat": 0.5, "ears": 0.5, "ground": 0.75, "all three": 0.25}


def test_many_pictures_are_judged_in_parts():
    texts = [CAPTIONS[i % 48] for i in range(600)]
    right = factor_labels(combination_numbers(texts))
    judge = Says(**{name: values.tolist() for name, values in right.items()})
    assert set(adherence(judge, torch.zeros(600, 3, 64, 64), texts).values()) == {1.0} and judge.seen == 600


def test_the_loss_of_even_logits_is_the_sum_of_the_logarithms():
    class Even(torch.nn.Module):
        def forward(self, x):
            return {name: torch.zeros(len(x), len(values)) for name, values in FACTORS.items()}

    loss = judge_loss(Even(), Batch(torch.zeros(3, 3, 64, 64), torch.tensor([0, 20, 47])), generator_for(0))["loss"]
    torch.testing.assert_close(loss, torch.full((3,), 48.0).log())


def test_blur_and_grain_stay_pictures_and_follow_the_generator():
    images = load_drawn_dogs(40, 64).pixels()
    out = blur_and_grain(images, generator_for(0))
    assert out.shape == images.shape and out.min() >= 0 and out.max() <= 1
    assert torch.equal(out, blur_and_grain(images, generator_for(0)))
    edges = [(x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3)) for x in (out, images)]
    assert 5 < (edges[0] < 0.8 * edges[1]).sum() < 35  # some are softened, and some are not


@pytest.mark.slow
def test_it_learns():
    judge = train_judge(load_drawn_dogs(480, 64), epochs=2)
    dogs = load_drawn_dogs(96, 64, "validation")
    found = adherence(judge, dogs.pixels(), dogs.captions)
    assert found["coat"] > 0.6 and found["ground"] > 0.8, found
    assert isinstance(judge, DogJudge) and not judge.training
