"""`convmix benchmark`: speed and memory beside every peer, in one run."""
