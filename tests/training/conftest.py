"""Trainings whose numbers matter: no test here looks at a picture, but for those of the runs that are made once."""

import pytest


@pytest.fixture(autouse=True)
def without_pictures(unpainted: None) -> None:
    """Their curves and predictions are drawn in tests/plots, and in every run of trained_runs.py."""
