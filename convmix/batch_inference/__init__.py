"""Prediction for millions of images on a cluster.

input -> numbered blocks -> Ray Data -> a parquet partition per block
"""
