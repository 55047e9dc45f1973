"""Measures of images, likelihood and samples; what a latent holds, and what it is good for."""
