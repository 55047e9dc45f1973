"""The adversarial recipe: who learns from which loss, and the published formulas."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers import CourseError, adversarial
from helpers.adversarial import Contest, PatchDiscriminator, PerceptualDistance, adaptive_weight, contest_loss, hinge_loss
from helpers.budget import generator_for
from helpers.conv_vae import ConvVAE, VAEConfig
from helpers.data import Batch

TINY = VAEConfig((8, 8), latent_channels=2, blocks=1, groups=2)


@pytest.fixture
def contest() -> Contest:
    torch.manual_seed(0)
    return Contest(ConvVAE(TINY), PatchDiscriminator(width=8, layers=2, groups=2))


@pytest.fixture
def batch() -> Batch:
    return Batch(torch.rand(3, 3, 32, 40, generator=generator_for(1)), None)


def pulls(module: nn.Module) -> float:
    return sum(float(weight.grad.abs().sum()) for weight in module.parameters() if weight.grad is not None)


@pytest.mark.parametrize(("layers", "field"), [(2, 34), (3, 70)])
def test_each_logit_looks_at_one_patch(layers, field):
    judge, x = PatchDiscriminator(width=8, layers=layers, groups=2), torch.rand(1, 3, 96, 128).requires_grad_()
    for norm in (module for module in judge.modules() if isinstance(module, nn.GroupNorm)):
        norm.forward = lambda h: h  # it looks at the whole picture; the convolutions do not
    logits = judge(x)
    assert logits.shape[:2] == (1, 1) and logits.shape[2] < logits.shape[3]
    (reached,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2], x)
    rows, columns = (reached.abs().sum((0, 1)) > 0).nonzero().T
    assert int(rows.max() - rows.min()) + 1 == int(columns.max() - columns.min()) + 1 == field


def test_hinge_loss_asks_for_margins_of_1():
    real, fake = torch.tensor([[[[2.0, 0.5]]]]), torch.tensor([[[[-3.0, 0.0]]]])
    assert hinge_loss(real, fake).tolist() == [0.5 * ((0 + 0.5) / 2 + (0 + 1) / 2)]


def test_adaptive_weight_is_the_ratio_of_the_gradients():
    last = torch.tensor([3.0, 4.0], requires_grad=True)
    nll, fooling = (last * torch.tensor([6.0, 8.0])).sum(), (last * torch.tensor([0.0, 0.5])).sum()
    weight = adaptive_weight(nll, fooling, last)
    assert float(weight) == pytest.approx(10 / (0.5 + 1e-4)) and not weight.requires_grad
    assert float(adaptive_weight(nll, (last * 1e-9).sum(), last)) == 1e4
    with torch.no_grad():
        assert float(adaptive_weight(nll, fooling, last)) == 0


def test_the_discriminator_learns_from_judging_only(contest, batch):
    contest_loss(contest, batch, generator_for(0))["loss"].mean().backward()
    together = [weight.grad.clone() for weight in contest.discriminator.parameters()]
    contest.zero_grad()
    contest_loss(contest, batch, generator_for(0))["discriminator"].mean().backward()
    assert pulls(contest.vae) == 0 and pulls(contest.discriminator) > 0
    for weight, expected in zip(contest.discriminator.parameters(), together, strict=True):
        torch.testing.assert_close(weight.grad, expected)


def test_the_vae_learns_from_fooling(contest, batch):
    contest_loss(contest, batch, generator_for(0))["fooling"].mean().backward()
    assert pulls(contest.discriminator) == 0 and pulls(contest.vae) > 0


def test_the_loss_is_stable_diffusions_sum(contest, batch):
    terms = contest_loss(contest, batch, generator_for(0), beta=0.25, adversarial=0.5)
    made = contest(2 * batch.images - 1, generator_for(0))
    error = (made.output.decoded - (2 * batch.images - 1)).abs().flatten(1).sum(1)
    torch.testing.assert_close(terms["reconstruction"], error)
    weight = adaptive_weight(error.mean(), terms["fooling"].mean(), contest.vae.decoder.conv_out.weight)
    plain = error + 0.25 * terms["kl"] + terms["discriminator"]
    assert float(weight) > 0
    # another forward pass, another graph: the weights of the last layer have the same gradients
    torch.testing.assert_close(terms["loss"], plain + 0.5 * weight * terms["fooling"], rtol=1e-4, atol=1e-3)
    without = contest_loss(contest, batch, generator_for(0), beta=0.25, adversarial=0.0)
    torch.testing.assert_close(without["loss"], plain)


def perceptual() -> PerceptualDistance:
    from torchvision.models import vgg16

    torch.manual_seed(0)
    return PerceptualDistance(vgg16().features)  # random weights: the formula, not the judgement


def test_perceptual_distance_of_equal_images_is_0_and_grows_with_the_difference():
    distance, x = perceptual(), torch.rand(2, 3, 32, 48) * 2 - 1
    assert distance(x, x).tolist() == [0.0, 0.0]
    noise = torch.randn_like(x)
    near, far = distance(x + 0.05 * noise, x), distance(x + 0.5 * noise, x)
    assert near.shape == (2,) and bool((0 < near).all()) and bool((near < far).all())
    torch.testing.assert_close(distance(x, x + noise), distance(x + noise, x))
    assert not any(weight.requires_grad for weight in distance.parameters())


def test_perceptual_distance_is_its_formula_written_out():
    from torchvision.models import vgg16

    torch.manual_seed(0)
    layers, (x, y) = vgg16().features.eval(), torch.rand(2, 1, 3, 32, 48) * 2 - 1
    colours = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    a, b, expected = ((x + 1) / 2 - colours[0]) / colours[1], ((y + 1) / 2 - colours[0]) / colours[1], 0.0
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):  # five of them, and a stage ends before each
            one, other = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
            expected += (one - other).square().sum(1).mean()
        a, b = layer(a.clone()), layer(b.clone())
    torch.testing.assert_close(perceptual()(x, y), expected[None], rtol=1e-4, atol=1e-5)


def test_perceptual_distance_adds_every_value_of_the_image(contest, batch):
    class Constant(nn.Module):
        def forward(self, a, b):
            return torch.full((len(a),), 0.01)

    plain = contest_loss(contest, batch, generator_for(0))["reconstruction"]
    contest.distance = Constant()
    more = contest_loss(contest, batch, generator_for(0))["reconstruction"]
    torch.testing.assert_close(more - plain, torch.full((3,), 0.01 * 3 * 32 * 40), rtol=1e-3, atol=1e-3)


def test_weights_that_cannot_be_had_are_said_in_one_sentence(monkeypatch, tmp_path, capsys):
    from torchvision.models import VGG16_Weights

    def fail(*args, **kwargs):
        assert kwargs["weights_only"] and kwargs["check_hash"]
        Path(kwargs["model_dir"]).mkdir(parents=True)  # as torch.hub does
        print("Downloading", file=sys.stderr)
        raise OSError("no route to host")

    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setattr(VGG16_Weights, "get_state_dict", fail)
    with pytest.raises(CourseError, match="no route to host.*discriminator alone"):
        adversarial.load_perceptual_distance()
    assert capsys.readouterr().err == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [EOFError("Ran out of input"), IndexError("list index out of range"), {"foreign": 1}])
def test_a_cut_or_foreign_file_of_weights_is_one_sentence(monkeypatch, tmp_path, fault):
    from torchvision.models import VGG16_Weights

    def get(*args, **kwargs):
        if isinstance(fault, Exception):
            raise fault
        return fault

    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setattr(VGG16_Weights, "get_state_dict", get)
    with pytest.raises(CourseError, match="delete COURSE_DATA/vgg16"):
        adversarial.load_perceptual_distance()
