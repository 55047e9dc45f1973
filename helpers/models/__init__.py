"""What the notebooks build, and nothing else: these files import torch, each other, env and rng.

Read them in this order: distributions, losses, mlp_vae (notebooks 1 and 2), variants and vq_vae
(notebook 5), blocks, conv_vae, discriminator and perceptual (notebook 8).
"""
