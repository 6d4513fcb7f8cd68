"""The page of an explanation: how far the maps can be trusted, the images, then the model itself."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from convmix.data.formats import printable
from convmix.explanation import attribution_maps, weights
from convmix.explanation.explanation_result import Explanation
from convmix.explanation.methods import TITLES
from convmix.explanation.stages import ModelStage
from convmix.explanation.trust import LEAST_MOVE, RANDOM_ORDERS, SAME_MAP, SPREADS
from convmix.plots.html_page import Page


def write_page(explanation: Explanation, model: nn.Module, stages: Sequence[Sequence[ModelStage]]) -> list[Path]:
    """Write the HTML file and its pictures; all files that were written.

    model: the specimen, whose weights are drawn. stages: per image its feature maps, 1,C,h,w each.
    """
    e = explanation
    under = f"{len(e.images)} image{'s' if len(e.images) > 1 else ''} explained" if e.images else "the model itself, without images"
    page = Page(f"Explanation of {Path(e.run).name}", under)
    _trust(page, e)
    if e.images:
        page.section(
            "Images", "Orange speaks for the class, blue against it; the black line holds the tenth of the image that matters most."
        )
    for i, (image, maps) in enumerate(zip(e.images, stages, strict=True), start=1):
        png = attribution_maps.image_picture(image, e.methods, maps)
        said = f"{image.predicted}, {100 * image.probabilities[image.predicted]:.1f} %"
        page.figure(png, name=f"image-{i:02d}", alt=f"maps of {printable(image.name)}", caption=f"{printable(image.name)}: {said}")
    _model(page, e, model)
    return page.write(e.page)


VERDICT_COLUMNS = ("method", "verdict", "clear on", "gap", "random", "shuffled weights")


def verdict_rows(explanation: Explanation) -> list[tuple[str, ...]]:
    """A row of `VERDICT_COLUMNS` per method."""
    signs = {True: "✓", False: "✗", None: "?"}
    return [
        (
            TITLES[v.method],
            f"{signs[v.is_trusted]} {v.words}",
            f"{v.better} of {v.judged}",
            _number(v.gap),
            _number(v.random_gap),
            _number(v.correlation),
        )
        for v in explanation.methods
    ]


def _trust(page: Page, e: Explanation) -> None:
    if e.images and e.methods:
        page.section(
            "How far to trust the maps",
            "A map is tested on the model: the parts of the image that it calls important are blurred away first (deletion: the "
            "probability should fall at once) or come back first into a blurred image (insertion: it should rise at once). The gap "
            f"between the two areas must exceed that of {RANDOM_ORDERS} random orders by {SPREADS:g} of their standard deviations; on a "
            "picture, one that lies between is in doubt (?), and one that does not even reach their mean fails and is crossed out. A "
            f"probability that moves by less than {LEAST_MOVE:g} allows no verdict. Then the model's weights are shuffled: a map whose "
            f"rank correlation with the one before is {SAME_MAP:g} or more does not show what the model has learned.",
        )
        page.table(VERDICT_COLUMNS, verdict_rows(e), caption="all images together, for their predicted classes")
        page.text(
            "Clear on: images that alone would do for the verdict. Gap: insertion less deletion, mean over the images. Shuffled weights: "
            "rank correlation with the maps of the shuffled model."
        )
    for note in e.notes:
        page.note(note)
    if e.bad:
        page.table(("file", "why it could not be read"), [(printable(name), reason) for name, reason in e.bad])


def _model(page: Page, e: Explanation, model: nn.Module) -> None:
    a = e.anatomy
    filters = weights.first_filters(model)
    page.section("First filters")
    if filters is None:
        page.text("The model has no convolution that looks at pixels.")
    else:
        name, w = filters
        count = min(len(w), weights.MOST_FILTERS)
        caption = f"{name}: {count} of {len(w)} filters of {w.shape[2]} x {w.shape[3]} pixels, the strongest first, each on its own scale"
        page.figure(weights.filters_picture(w), name="filters", alt="first filters", caption=caption)
    page.section("Depthwise kernels")
    if a.depthwise:
        drawn = len(weights.shown(list(a.depthwise)))
        page.figure(
            weights.kernels_picture(list(a.depthwise)),
            name="kernels",
            alt="depthwise kernels by layer",
            caption=f"{drawn} of {len(a.depthwise)} layers; spread: how far from the middle the weights lie, in positions",
        )
    else:
        page.text("The model has no depthwise convolution.")
    page.section("Receptive field", f"What the unit in the middle of a stage looks at. Measured on {a.watched}.")
    if a.fields:
        page.figure(attribution_maps.fields_picture(a.fields), name="receptive-field", alt="receptive fields")
    else:
        page.text("No stage of this model is a map over the image.")
    page.section("Activations", f"Measured on {a.watched}.")
    if a.activations:
        page.figure(attribution_maps.activations_picture(a.activations), name="activations", alt="activations by layer")
        rows = [
            (i, x.layer, x.kind, f"{x.mean:.3f}", f"{x.std:.3f}", *(f"{100 * s:.1f} %" for s in (x.zero, x.saturated, x.dead)))
            for i, x in enumerate(a.activations, start=1)
        ]
        page.table(("", "layer", "function", "mean", "std", "zero", "flat", "dead channels"), rows)
    else:
        page.text("The model has no activation function that is a module of its own.")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
