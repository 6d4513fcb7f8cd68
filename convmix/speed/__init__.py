"""The same model, faster: folding, our own kernels, other engines, the measured choice."""
