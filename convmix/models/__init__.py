"""Pixels to features: the three families, their names, their weights.

Imports nothing, so that `import convmix` stays cheap.
"""
