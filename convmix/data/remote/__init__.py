"""Data behind URLs and in object stores, through a bounded cache."""
