"""A ConvVAE out of a file: what --export wrote, or a checkpoint of a run."""

from pathlib import Path

from helpers import CourseError
from helpers.models.conv_vae import ConvVAE
from helpers.models.discriminator import VAEGAN
from helpers.training.checkpoints import put_weights, unnest
from helpers.training.run_state import weights_of


def load_vae(path: Path) -> tuple[ConvVAE, dict]:
    """(the VAE of a .safetensors file, the file's header); of a VAEGAN without its discriminator.

    CourseError where there is no such file, or it holds something else.
    """
    if not path.exists():
        raise CourseError(f"--init-from: there is no file {path}.")
    tensors, header = weights_of(path)
    kind = header.get("class")
    if kind == VAEGAN.__name__:
        tensors = unnest(tensors, "vae")
    elif kind != ConvVAE.__name__:
        raise CourseError(
            f"--init-from: {path.name} holds no ConvVAE; a file that --export or a run wrote is "
            "wanted, or a folder of diffusers."
        )
    try:
        vae = ConvVAE(**header["config"])
    except (KeyError, TypeError) as error:
        raise CourseError(
            f"--init-from: {path.name} is of another version ({error}); export it again."
        ) from error
    put_weights(vae, tensors, header, path.name)
    return vae, header
