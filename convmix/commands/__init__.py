"""The verbs of the command line, by what a user does with them; `cli.py` puts them together."""
