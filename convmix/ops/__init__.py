"""The operators that the models are made of.

Imported for its effect: it registers them with PyTorch.
"""
