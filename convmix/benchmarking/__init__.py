"""`convmix benchmark`: convmix beside its peers, in one run."""
