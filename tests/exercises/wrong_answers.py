"""Typical wrong answers to the exercises, and a piece of the sentence that each must get.

One file per notebook, each with
WRONG = {"exercise": [("code that defines the stub's name", "piece of its sentence"), ...]}
"""

from tests.exercises import (
    wrong_autoencoder,
    wrong_conv_attention_vae_dogs,
    wrong_diffusers_integration,
    wrong_inside_the_loss,
    wrong_mlp_vae_mnist,
    wrong_tiny_stable_diffusion,
    wrong_using_the_latent_space,
    wrong_vae_variants,
)

WRONG: dict[str, list[tuple[str, str]]] = {
    **wrong_autoencoder.WRONG,
    **wrong_mlp_vae_mnist.WRONG,
    **wrong_inside_the_loss.WRONG,
    **wrong_using_the_latent_space.WRONG,
    **wrong_vae_variants.WRONG,
    **wrong_conv_attention_vae_dogs.WRONG,
    **wrong_diffusers_integration.WRONG,
    **wrong_tiny_stable_diffusion.WRONG,
}
