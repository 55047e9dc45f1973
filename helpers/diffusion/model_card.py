"""What a tiny Stable Diffusion is published with: the card beside its weights."""

from helpers.data.synthetic_dogs import COATS
from helpers.results import describe_device

CARD = """---
library_name: diffusers
---

# {name}: a tiny Stable Diffusion

Draws sitting dogs of 64×64 pixels: "a COAT dog with EARS ears PLACE". COAT: {coats}.
EARS: floppy, pointy. PLACE: on grass, on sand, on snow, at night.

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("{name}")
prompt = "a golden dog with floppy ears on grass"
pipeline(prompt, num_inference_steps=20, guidance_scale=3.0).images[0]
```

- made by: `python -m helpers.train_tiny_sd {command}`
- trained from scratch, {length} on {device}, on {dogs:,} drawn dogs, all sitting (no photographs,
  no other model)
- parameters: {parameters}
- scaling factor of the latents: {scaling_factor:.4f}; the autoencoder alone: {psnr:.2f} dB on
  drawings never seen

Share of pictures in which a classifier that had no part in the training sees what the prompt asked
for ({pictures} prompts each; "never seen": combinations that were left out of training):

{table}
"""


def pipeline_card(
    name: str, pipeline, figures: dict, *, command: str, length: str, pictures: int
) -> str:
    """The model card: what the pipeline draws, how it was made, and how good it is.

    figures: "dogs", "scaling_factor", "psnr", and "shares" as `measure_prompt_accuracy` returns
    them, of so many `pictures` each.  command: the options that trained it.  length: of the
    training, in words.
    """
    parts = {"VAE": pipeline.vae, "UNet": pipeline.unet, "text encoder": pipeline.text_encoder}
    counts = {part: sum(w.numel() for w in model.parameters()) for part, model in parts.items()}
    factors = list(figures["shares"]["seen"])
    rows = ["| prompts | " + " | ".join(factors) + " |", "|---" * (len(factors) + 1) + "|"]
    for kind, found in figures["shares"].items():
        rows.append(f"| {kind} | " + " | ".join(f"{found[each]:.1%}" for each in factors) + " |")
    return CARD.format(
        name=name,
        coats=", ".join(COATS),
        command=command,
        length=length,
        pictures=pictures,
        device=describe_device(),
        parameters=", ".join(f"{part} {count:,}" for part, count in counts.items()),
        table="\n".join(rows),
        **{key: figures[key] for key in ("dogs", "scaling_factor", "psnr")},
    )
