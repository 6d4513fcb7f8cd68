"""How good a run is: `evaluate` scores it and writes JSON, CSV and a page; `table` is for the terminal."""

from convmix.evaluation.classification_result import Evaluation, Scored
from convmix.evaluation.score import evaluate
from convmix.evaluation.terminal import table

__all__ = ["Evaluation", "Scored", "evaluate", "table"]
