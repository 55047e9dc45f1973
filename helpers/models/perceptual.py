"""How differently a network trained on photographs sees two images: VGG16's perceptual distance."""

from contextlib import redirect_stderr, suppress
from io import StringIO
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from torch import nn

from helpers import CourseError
from helpers.env import connect_timeout, data_dir


class PerceptualDistance(nn.Module):
    """The distance of two images (B, 3, H, W) in [0, 1]: (B,), 0 for equal ones; weights are fixed.

    Features after five stages, each position scaled to length 1, squared difference, averaged over
    positions, summed over stages: LPIPS without its learned channel weights.  Zhang et al. 2018,
    eq. 1; Simonyan & Zisserman 2015.
    """

    STAGES = (3, 8, 15, 22, 29)  # the ReLUs before each pooling
    MEAN = (0.485, 0.456, 0.406)  # of ImageNet's channels
    STD = (0.229, 0.224, 0.225)

    def __init__(self, features: nn.Sequential):
        super().__init__()
        self.features = features[: max(self.STAGES) + 1].requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor(self.MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(self.STD).view(1, 3, 1, 1))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        both = (torch.cat([a, b]) - self.mean) / self.std  # (2B, 3, H, W)
        total = torch.zeros(len(a), device=a.device)
        for number, layer in enumerate(self.features):
            both = layer(both)
            if number in self.STAGES:
                one, other = F.normalize(both.float(), dim=1).chunk(2)  # 2 × (B, C, h, w)
                total = total + (one - other).square().sum(1).mean((1, 2))
        return total


def load_perceptual_distance() -> PerceptualDistance:
    """PerceptualDistance with torchvision's ImageNet weights (528 MB, checked).

    CourseError where they cannot be had.
    """
    from torchvision.models import VGG16_Weights, vgg16

    folder = data_dir() / "vgg16"
    try:
        # stderr: "Downloading …", also where nothing comes
        with connect_timeout(), redirect_stderr(StringIO()):
            state = VGG16_Weights.IMAGENET1K_V1.get_state_dict(
                model_dir=str(folder), progress=False, check_hash=True, weights_only=True
            )
        network = vgg16()
        network.load_state_dict(state)
    except (OSError, RuntimeError, EOFError, IndexError, UnpicklingError) as error:
        # no connection; a cut-off or foreign file
        raise CourseError(
            f"VGG16's weights could not be loaded ({error}): go on with the discriminator alone, "
            "or delete COURSE_DATA/vgg16 and try again."
        ) from error
    finally:
        with suppress(OSError):  # it stays where a file is in it
            folder.rmdir()
    return PerceptualDistance(network.features)
