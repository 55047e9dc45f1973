"""VGG16's perceptual distance: its formula, and what is said where its weights are missing."""

import socket
import sys
from pathlib import Path

import pytest
import torch
import torchvision.models
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from helpers import CourseError
from helpers.models import perceptual

NARROW = [width if width == "M" else width // 16 for width in cfgs["D"]]


def narrow_vgg16() -> nn.Sequential:
    """VGG16's layers with a sixteenth of its channels and random weights."""
    torch.manual_seed(0)
    layers = make_layers(NARROW)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)  # the default fades out over so many layers
    return layers


WIDTHS = [4, 8, 16, 32, 32]  # of the narrow network's stages


def channel_weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(width, generator=generator) / 5 for width in WIDTHS]


def distance() -> perceptual.LPIPS:
    return perceptual.LPIPS(narrow_vgg16(), channel_weights())


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(2, 2, 3, 32, 48, generator=torch.Generator().manual_seed(0)).unbind()


def test_the_narrow_network_has_vgg16s_layers():
    with torch.device("meta"):
        real = torchvision.models.vgg16().features
    assert [type(layer) for layer in real] == [type(layer) for layer in narrow_vgg16()]


def test_the_distance_of_equal_images_is_0_and_grows_with_the_difference():
    lpips, (x, noise) = distance(), pairs()
    assert lpips(x, x).tolist() == [0.0, 0.0]
    near, far = lpips(x + 0.02 * noise, x), lpips(x + noise, x)
    assert near.shape == (2,) and bool((0 < near).all()) and bool((near < far).all())
    torch.testing.assert_close(lpips(x, x + noise), far)
    assert not any(weight.requires_grad for weight in lpips.parameters())


def test_the_distance_is_its_formula_written_out():
    colours = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    x, y = pairs()
    a, b = ((image - colours[0]) / colours[1] for image in (x, y))
    expected = torch.zeros(2)
    stages = iter(channel_weights())
    for layer in narrow_vgg16():
        if isinstance(layer, nn.MaxPool2d):  # five of them, and a stage ends before each
            one, other = (h / h.norm(dim=1, keepdim=True).clamp_min(1e-10) for h in (a, b))
            counts = next(stages)
            expected += torch.einsum("bchw,c->bhw", (one - other).square(), counts).mean((1, 2))
        a, b = layer(a.clone()), layer(b.clone())
    assert expected.min() > 0.001
    torch.testing.assert_close(distance()(x, y), expected, rtol=1e-4, atol=1e-6)


OWN = dict(enumerate(channel_weights()))


class NarrowVGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = narrow_vgg16()


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """A function that makes torchvision answer a request for VGG16's weights in a certain way.

    LPIPS's own weights can be had.
    """
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))

    def download(url, file, hash_prefix, progress):
        assert hash_prefix == perceptual.SHA256 and len(hash_prefix) == 64
        assert url.endswith("vgg.pth")
        layers = {f"lin{i}.model.1.weight": w[None, :, None, None] for i, w in OWN.items()}
        torch.save(layers, file)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(torchvision.models, "vgg16", NarrowVGG)

    def answer(given):
        def get_state_dict(*args, **kwargs):
            assert kwargs["weights_only"] and kwargs["check_hash"]
            assert socket.getdefaulttimeout() is not None
            assert (Path(kwargs["model_dir"]) / "lpips.pth").exists()
            print("Downloading", file=sys.stderr)
            if isinstance(given, Exception):
                raise given
            return given

        choice = torchvision.models.VGG16_Weights
        monkeypatch.setattr(choice, "get_state_dict", get_state_dict)

    return answer


def test_downloaded_weights_are_used_in_silence(weights, capsys):
    downloaded = NarrowVGG()
    for weight in downloaded.parameters():
        nn.init.uniform_(weight)
    weights(downloaded.state_dict())
    found = perceptual.load_lpips()
    assert torch.equal(found.features[28].weight, downloaded.features[28].weight)
    assert torch.equal(found.weights_29.flatten(), OWN[4])
    assert capsys.readouterr().err == "" and socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    "fault",
    [
        OSError("no route to host"),
        EOFError("Ran out of input"),
        IndexError("list index out of range"),
        {"foreign": torch.zeros(1)},
    ],
)
def test_weights_that_cannot_be_had_are_one_sentence(weights, tmp_path, capsys, fault):
    weights(fault)
    with pytest.raises(
        CourseError, match="discriminator alone.*delete COURSE_DATA/vgg16"
    ) as raised:
        perceptual.load_lpips()
    assert isinstance(fault, dict) or str(fault) in str(raised.value)
    assert capsys.readouterr().err == ""
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lpips.pth"]
    assert socket.getdefaulttimeout() is None


def test_without_a_connection_nothing_is_left_behind(weights, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    weights(OSError())
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(CourseError, match="no route to host"):
        perceptual.load_lpips()
    assert list(tmp_path.iterdir()) == []
