"""What a trained VAE is published with: figures as text, weights, and a card beside them."""

from dataclasses import replace
from pathlib import Path

from helpers.env import write_file
from helpers.metrics.latents import LatentStatistics
from helpers.models.conv_vae import ConvVAE, is_autoencoder_kl
from helpers.training.checkpoints import save_model


def report(figures: dict) -> str:
    """The figures as lines of text."""
    linear = f"block PCA, as many dimensions: {figures['block_pca_psnr']:.2f} dB"
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
- weights: {precision}

To use it in the folder of this file, with the course's folder in `PYTHONPATH`:

```python
from helpers.models.conv_vae import ConvVAE
from helpers.training.checkpoints import load_weights, read_tensors

model = ConvVAE(**read_tensors("{name}.safetensors")[1]["config"]).eval()
load_weights(model, "{name}.safetensors")
```
{library}
What it does to images that it never saw:

```
{figures}
```

Their latents, not scaled:

| channel | mean | standard deviation |
|---|---|---|
{latents}

Pixels are in [0, 1].  Latents are not scaled: multiply them by the scaling factor before a
diffusion model sees them, and divide before decoding.
The file holds weights and no images; who made the images may limit what it is used for.
"""

LIBRARY = """
Or with diffusers alone, where pixels are in [-1, 1]:

```python
from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained("{name}")
```
"""

ADAPTER = """
Or in a pipeline of diffusers, where pixels are in [-1, 1]; it has no such network of its own, so
the course's adapter comes along:

```python
from helpers.diffusers_bridge import DiffusersVAE

vae = DiffusersVAE.from_pretrained("{name}")
```
"""


def export_vae(
    name: str,
    vae: ConvVAE,
    size: int,
    figures: dict,
    latents: LatentStatistics,
    *,
    command: str,
    done: str,
    frozen: bool = False,
    library: bool = False,
) -> Path:
    """Write the weights to checkpoints/`name`.safetensors and a model card beside them.

    size: of the images it was trained on.  latents: of the held-out images.  command: the options
    that trained it.  done: the training in words.  figures["scaling_factor"] goes into the
    configuration.  frozen: the encoder was not trained, so the weights stay float32 and its own,
    else they become fp16.  library: a folder for diffusers is written, too.
    """
    vae.config = replace(vae.config, scaling_factor=figures["scaling_factor"])
    mean, std = latents.mean.tolist(), latents.std.tolist()
    told = {"resolution": size, "figures": figures, "command": command}
    told |= {"latents_mean": mean, "latents_std": std, "freeze": "encoder" if frozen else None}
    path = save_model(name, vae, half=not frozen, **told)

    folder = LIBRARY if is_autoencoder_kl(vae.config) else ADAPTER
    precision = "float32; the encoder and its scaling factor are those that it began with"
    rows = [f"| {i} | {m:.4f} | {s:.4f} |" for i, (m, s) in enumerate(zip(mean, std))]
    card = CARD.format(
        name=name,
        size=size,
        command=command,
        done=done,
        config=vae.config,
        precision=precision if frozen else "float16",
        library=folder.format(name=name) if library else "",
        figures=report(figures),
        latents="\n".join(rows),
    )
    write_file(path.with_suffix(".md"), card)
    return path
