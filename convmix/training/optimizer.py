"""The optimiser of a training: timm's, with Muon kept to the matrices it is for."""

from typing import Any

import torch
from torch import nn

from convmix.config import Optim
from convmix.errors import ConfigError, did_you_mean

ENDS = ("stem.", "reduce.", "tokenizer.", "head.")  # what reads pixels and what gives logits, in all three families


def create_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """timm's optimiser of that name over the parameters of `model` that are trained; ConfigError for a name it does not know.

    Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") orthogonalises the steps of the matrices inside the
    network; depthwise filters, norms, biases, the patch embedding and the classifier are left to AdamW, as its author advises, at
    `optim.adamw_share` of the learning rate. A group's "lr_scale" is its share of the schedule's learning rate, as in timm's layer decay.
    """
    from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers

    names = [str(name) for name in list_optimizers()]
    if optim.optimizer not in names:
        raise ConfigError(f"unknown optimizer {optim.optimizer}{did_you_mean(optim.optimizer, names)}")
    settings: dict[str, Any] = {"eps": optim.eps} if get_optimizer_info(optim.optimizer).has_eps else {}
    if optim.optimizer.endswith("muon"):
        settings["fallback_list"] = [name for name, parameter in model.named_parameters() if not _is_inner_matrix(name, parameter)]
    optimizer = create_optimizer_v2(
        model, opt=optim.optimizer, lr=optim.lr, weight_decay=optim.weight_decay, momentum=optim.momentum,
        filter_bias_and_bn=not optim.decay_norm_bias, layer_decay=_layer_decay(model, optim), **settings,
    )  # fmt: skip
    for group in optimizer.param_groups:
        if group.get("use_fallback"):
            group["lr_scale"] = group.get("lr_scale", 1.0) * optim.adamw_share
    return optimizer


def _is_inner_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and min(parameter.shape[:2]) > 1 and not name.startswith(ENDS)


def _layer_decay(model: nn.Module, optim: Optim) -> float | None:
    """None where all layers have one rate, also because the model does not say which layers it has."""
    return optim.layer_decay if optim.layer_decay != 1 and hasattr(model, "group_matcher") else None
