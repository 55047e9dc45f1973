"""What a trained VAE is published with: figures as text, weights, and a card beside them."""

from dataclasses import replace
from pathlib import Path

from helpers.env import write_file
from helpers.models.conv_vae import ConvVAE
from helpers.training.checkpoints import save_model


def report(figures: dict) -> str:
    """The figures as lines of text."""
    linear = f"block PCA of equal rate: {figures['block_pca_psnr']:.2f} dB"
    dimensions = figures["dimensions"]
    lines = {
        "held out": figures["source"],
        "PSNR": f"{figures['psnr']:.2f} dB ({linear})",
        "SSIM": f"{figures['ssim']:.3f}",
        "sharpness": f"{figures['sharpness']:.2f} (the originals: 1)",
        "KL": f"{figures['kl']:.0f} nats per image, in {dimensions} latent dimensions",
        "noise": f"{figures['noise']:.2f} (posterior standard deviation / that of the means)",
        "active": f"{figures['active']} of {dimensions} dimensions",
        "scaling factor": f"{figures['scaling_factor']:.4f}",
    }
    return "\n".join(f"{name:18}{text}" for name, text in lines.items())


CARD = """# {name}

A convolutional VAE for images of {size}×{size} pixels.

- made by: `python -m helpers.train_vae {command}`
- training: {done}
- configuration: `{config}`

```python
from helpers.env import write_file
from helpers.models.conv_vae import ConvVAE
from helpers.training.checkpoints import load_weights, read_tensors

model = ConvVAE(**read_tensors("{name}.safetensors")[1]["config"]).eval()
load_weights(model, "{name}.safetensors")
```

What it does to images that it never saw:

```
{figures}
```

Pixels are in [0, 1].  Latents are not scaled: multiply them by the scaling factor before a
diffusion model sees them, and divide before decoding.
The file holds weights and no images; who made the images may limit what it is used for.
"""


def export_vae(name: str, vae: ConvVAE, size: int, figures: dict, command: str, done: str) -> Path:
    """Write the weights in fp16 to checkpoints/`name`.safetensors and a model card beside them.

    size: of the images it was trained on.  command: the options that trained it.  done: the
    training in words.  The measured scaling factor goes into the configuration.
    """
    vae.config = replace(vae.config, scaling_factor=figures["scaling_factor"])
    path = save_model(name, vae, half=True, resolution=size, figures=figures)
    card = CARD.format(
        name=name,
        size=size,
        command=command,
        done=done,
        config=vae.config,
        figures=report(figures),
    )
    write_file(path.with_suffix(".md"), card)
    return path
