"""What a training leaves and everything else reads: model directory, card, Hub, exported models."""
