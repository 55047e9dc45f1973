"""The classifier of digits: that it learns, and what it hands on."""

import torch

from helpers.classifiers.digits import (
    classify_digits,
    digit_classifier_loss,
    train_digit_classifier,
)
from helpers.data.datasets import load_digits
from helpers.metrics.samples import frechet_distance
from helpers.rng import generator_for


def test_it_learns_digits_in_four_epochs_and_its_features_tell_digits_from_others():
    train, test = load_digits("train"), load_digits("test")
    classifier = train_digit_classifier(train, epochs=4)
    pixels = test.pixels()
    many = pixels.repeat(3, 1, 1, 1)  # more than one part
    probabilities, features = classify_digits(classifier, many)
    assert probabilities.shape == (1080, 10) and features.shape == (1080, 64)
    assert not probabilities.requires_grad
    torch.testing.assert_close(classifier(many).softmax(1), probabilities)
    accuracy = (probabilities[:360].argmax(1) == test.labels).float().mean()
    assert accuracy > 0.6  # chance is 0.1

    assert frechet_distance(features[:360], features[torch.randperm(360)]) < 1e-3
    upside_down = classify_digits(classifier, pixels.flip(2))[1]
    assert frechet_distance(features[:360], upside_down) > 1


def test_the_loss_is_minus_the_logarithm_of_the_right_probability():
    def model(x):
        return torch.tensor([[2.0, 0.0, 1.0], [0.5, 0.5, -3.0]]).bfloat16()

    batch = {"images": torch.zeros(2, 1, 28, 28), "labels": torch.tensor([2, 0])}
    loss = digit_classifier_loss(model, batch, generator_for(0))["loss"]
    expected = -model(None).float().softmax(1)[[0, 1], [2, 0]].log()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
