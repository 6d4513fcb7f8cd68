"""What there is: models, recipes, and what a model costs."""


def describe(name: str, /, *, size: str = "224", num_classes: int = 1000, in_chans: int = 3, json: bool = False) -> None:
    """Parameters, true MACs, receptive field, stages and training memory of a model.

    Parameters
    ----------
    name:
        A convmix or timm model name.
    size:
        Input size in pixels, N or HxW.
    json:
        Print JSON instead of a table.
    """
    from convmix.config import Run, override
    from convmix.models.describe import describe as describe_model

    h_w = override(Run(), {"size": size}).data.size
    assert h_w is not None
    description = describe_model(name, size=h_w, num_classes=num_classes, in_chans=in_chans)
    if json:
        from json import dumps

        print(dumps(description.to_dict(), indent=2))
    else:
        print(description)


def models(pattern: str = "*", /) -> None:
    """List the models of convmix (any timm name is accepted as well)."""
    from convmix.models.catalog import list_models

    print("\n".join(list_models(pattern)))


def recipes() -> None:
    """List the recipes: where each comes from and what its source reports for it."""
    from convmix.data.facts import DataFacts
    from convmix.recipes import RECIPES, recipe

    for name in RECIPES:
        run = recipe(name, DataFacts(num_train=50_000, num_classes=10, height=224, width=224, in_chans=3))
        print(f"{name}\n  from: {run.source}" + (f"\n  reported there: {run.expect}" if run.expect else ""))
