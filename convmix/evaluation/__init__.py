"""How good a model is: scores with intervals, calibration, slices, robustness, worst errors."""

from convmix.evaluation.classification_result import Evaluation, ScoredImages
from convmix.evaluation.score import evaluate
from convmix.evaluation.terminal import table

__all__ = ["Evaluation", "ScoredImages", "evaluate", "table"]
