"""What a model does: what it sees in an image, how far the maps of it can be trusted, and what its own weights look like."""
