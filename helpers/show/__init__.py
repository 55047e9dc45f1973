"""Figures in one style, and explorers with sliders."""
