"""Pixels in: where examples come from, how they are decoded, augmented and batched."""
