"""`python -m convmix`, for torchrun and for environments without the script."""

from convmix.cli import main

main()
