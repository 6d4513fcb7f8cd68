"""The same model, faster: exact simplification, our own kernels, other engines, and the measured choice between them."""
