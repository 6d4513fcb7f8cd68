"""convmix: the home of the convolutional mixers.

The public names are imported on first use, so `import convmix` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from convmix.models import timm_registry

if TYPE_CHECKING:
    from convmix.api import Model, TrainedRun, load, optimize, train
    from convmix.artifacts.hub import pull, push
    from convmix.audit.doctor import doctor
    from convmix.batch_inference.job import batch_predict
    from convmix.benchmarking.measure import benchmark
    from convmix.comparison.ablation import ablate
    from convmix.comparison.compare import compare
    from convmix.data.inspection import inspect
    from convmix.errors import ConvmixError
    from convmix.evaluation import evaluate
    from convmix.evaluation.calibrate import calibrate
    from convmix.explanation.explain import explain
    from convmix.exporting.export import export
    from convmix.inference.embedding import embed
    from convmix.inference.prediction import predict
    from convmix.models.catalog import create_model, list_models
    from convmix.models.describe import describe
    from convmix.serving.server import serve

_HOME = {
    "ConvmixError": "convmix.errors",
    "Model": "convmix.api",
    "TrainedRun": "convmix.api",
    "ablate": "convmix.comparison.ablation",
    "batch_predict": "convmix.batch_inference.job",
    "benchmark": "convmix.benchmarking.measure",
    "calibrate": "convmix.evaluation.calibrate",
    "compare": "convmix.comparison.compare",
    "create_model": "convmix.models.catalog",
    "describe": "convmix.models.describe",
    "doctor": "convmix.audit.doctor",
    "embed": "convmix.inference.embedding",
    "evaluate": "convmix.evaluation",
    "explain": "convmix.explanation.explain",
    "export": "convmix.exporting.export",
    "inspect": "convmix.data.inspection",
    "list_models": "convmix.models.catalog",
    "load": "convmix.api",
    "optimize": "convmix.api",
    "predict": "convmix.inference.prediction",
    "pull": "convmix.artifacts.hub",
    "push": "convmix.artifacts.hub",
    "serve": "convmix.serving.server",
    "train": "convmix.api",
}

__all__ = [
    "ConvmixError",
    "Model",
    "TrainedRun",
    "ablate",
    "batch_predict",
    "benchmark",
    "calibrate",
    "compare",
    "create_model",
    "describe",
    "doctor",
    "embed",
    "evaluate",
    "explain",
    "export",
    "inspect",
    "list_models",
    "load",
    "optimize",
    "predict",
    "pull",
    "push",
    "serve",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'convmix' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


timm_registry.install()
