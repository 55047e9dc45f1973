"""The classifier of drawn dogs: its labels, the prompt accuracy, and that it learns."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.classifiers.dogs import (
    COMBINATIONS,
    FACTORS,
    combination_numbers,
    dog_classifier_loss,
    factor_labels,
    prompt_accuracy,
    train_dog_classifier,
)
from helpers.data.synthetic_dogs import SyntheticDogs, caption, load_synthetic_dogs
from helpers.rng import generator_for

CAPTIONS = [caption(*combination) for combination in COMBINATIONS]


@pytest.fixture(scope="module")
def dogs() -> SyntheticDogs:
    """Every combination four times."""
    return load_synthetic_dogs(192, 64)


class Says(nn.Module):
    """Answers with given positions, one picture after the other, whatever it is shown."""

    def __init__(self, **answers: list[int]):
        super().__init__()
        self.answers = answers
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = 0

    def forward(self, x):
        part = slice(self.seen, self.seen + len(x))
        self.seen += len(x)
        return {
            name: F.one_hot(torch.tensor(self.answers[name][part]), len(values)).float()
            for name, values in FACTORS.items()
        }


def test_combinations_and_captions_count_alike():
    assert len(set(COMBINATIONS)) == 48
    assert combination_numbers(CAPTIONS).tolist() == list(range(48))
    labels = factor_labels(torch.arange(48))
    for number, combination in enumerate(COMBINATIONS):
        assert tuple(FACTORS[name][labels[name][number]] for name in FACTORS) == combination


def test_labels_are_those_of_the_drawings(dogs):
    labels = factor_labels(combination_numbers(dogs.captions))
    assert all(torch.equal(labels[name], dogs.factors[name]) for name in FACTORS)


def test_shares_are_counted_for_each_factor_and_for_all_at_once():
    texts = [caption("brown", "floppy", "grass")] * 4
    classifier = Says(coat=[0, 0, 1, 1], ears=[0, 1, 0, 1], ground=[0, 0, 0, 3])
    found = prompt_accuracy(classifier, torch.zeros(4, 3, 64, 64), texts)
    assert found == {"coat": 0.5, "ears": 0.5, "ground": 0.75, "all three": 0.25}


def test_many_pictures_are_classified_in_parts_and_in_order():
    texts = [CAPTIONS[i % 48] for i in range(600)]
    right = factor_labels(combination_numbers(texts))
    classifier = Says(**{name: values.tolist() for name, values in right.items()})
    pictures = torch.zeros(1, 3, 64, 64).expand(600, -1, -1, -1)
    assert set(prompt_accuracy(classifier, pictures, texts).values()) == {1.0}
    assert classifier.seen == 600


def test_the_loss_of_even_logits_is_the_sum_of_the_logarithms():
    def even(x):
        return {name: torch.zeros(len(x), len(values)) for name, values in FACTORS.items()}

    batch = {"images": torch.zeros(3, 3, 64, 64), "labels": torch.tensor([0, 20, 47])}
    loss = dog_classifier_loss(even, batch, generator_for(0))["loss"]
    torch.testing.assert_close(loss, torch.full((3,), 48.0).log())


@pytest.mark.slow
def test_it_learns(dogs):
    classifier = train_dog_classifier(dogs, epochs=4)
    held_out = load_synthetic_dogs(48, 64, "validation")
    found = prompt_accuracy(classifier, held_out.pixels(), held_out.captions)
    assert not classifier.training
    assert found["coat"] > 0.5 and found["ground"] > 0.8, found  # chance is 1/6 and 1/4
