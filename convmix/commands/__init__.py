"""The verbs of the command line.

One file for each thing that a user does with them; `cli.py` puts them together.
"""
