"""What a model sees in an image, and how far such maps can be trusted."""
