"""How differently a network trained on photographs sees two images: LPIPS, with VGG16."""

from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from torch import nn

from helpers import CourseError
from helpers.env import connect_timeout, data_dir

# how much each channel counts, learned from what people found similar: 7 kB, published with the
# paper; their SHA-256
WEIGHTS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth"
SHA256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"


class LPIPS(nn.Module):
    """The distance of two images (B, 3, H, W) in [0, 1]: (B,), 0 for equal ones; weights are fixed.

    Features after five stages, each position scaled to length 1; their squared difference, each
    channel weighed, averaged over positions, summed over channels and stages.  channel_weights: one
    vector for each stage.  Zhang et al. 2018, eq. 1; Simonyan & Zisserman 2015.
    """

    STAGES = (3, 8, 15, 22, 29)  # the ReLUs before each pooling
    MEAN = (0.485, 0.456, 0.406)  # of ImageNet's channels
    STD = (0.229, 0.224, 0.225)

    def __init__(self, features: nn.Sequential, channel_weights: list[torch.Tensor]):
        super().__init__()
        self.features = features[: max(self.STAGES) + 1].requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor(self.MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(self.STD).view(1, 3, 1, 1))
        for stage, weights in zip(self.STAGES, channel_weights, strict=True):
            self.register_buffer(f"weights_{stage}", weights.view(1, -1, 1, 1))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        both = (torch.cat([a, b]) - self.mean) / self.std  # (2B, 3, H, W)
        total = torch.zeros(len(a), device=a.device)
        for number, layer in enumerate(self.features):
            both = layer(both)
            if number in self.STAGES:
                one, other = F.normalize(both.float(), dim=1, eps=1e-10).chunk(2)
                weights = getattr(self, f"weights_{number}")
                total = total + (weights * (one - other).square()).sum(1).mean((1, 2))
        return total


def load_lpips() -> LPIPS:
    """LPIPS with torchvision's ImageNet weights (528 MB) and its own (7 kB), both checked.

    CourseError where they cannot be had.
    """
    from torchvision.models import VGG16_Weights, vgg16

    folder = data_dir() / "vgg16"
    try:
        # stderr: "Downloading …", also where nothing comes
        with connect_timeout(), redirect_stderr(StringIO()):
            channel_weights = _channel_weights(folder)
            state = VGG16_Weights.IMAGENET1K_V1.get_state_dict(
                model_dir=str(folder), progress=False, check_hash=True, weights_only=True
            )
        network = vgg16()
        network.load_state_dict(state)
        return LPIPS(network.features, channel_weights)
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, UnpicklingError) as error:
        # no connection; a cut-off or foreign file
        raise CourseError(
            f"VGG16's weights could not be loaded ({error}): go on with the discriminator alone, "
            "or delete COURSE_DATA/vgg16 and try again."
        ) from error
    finally:
        with suppress(OSError):  # it stays where a file is in it
            folder.rmdir()


def _channel_weights(folder: Path) -> list[torch.Tensor]:
    """LPIPS's own weights, one vector for each stage; downloaded when first asked for."""
    file = folder / "lpips.pth"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(WEIGHTS, str(file), hash_prefix=SHA256, progress=False)
    layers = torch.load(file, map_location="cpu", weights_only=True)
    return [layers[f"lin{stage}.model.1.weight"].flatten() for stage in range(5)]
