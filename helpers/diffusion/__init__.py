"""Diffusion on latents: the noise and its loss, a tiny pipeline's parts, and aligning two VAEs."""
