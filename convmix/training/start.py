"""Where the weights of a new training begin: in a file, in published weights, or at random; and which model, where none is named.

    --weights FILE            the file
    --pretrained yes          published weights, or an error that says why not
    --pretrained no           random ones
    --pretrained auto         published ones for photos: RGB images of more than 64 pixels, to be classified, without a recipe by name.
                              The model is the one named, else `model_for_photos`. Where its weights are neither in a cache nor to be
                              had, it begins at random, as for tiny images, and one line says what would have been better

Decided once, by the main process for all, and written into the run as yes or no; this file reads caches and asks the network, and
`models.published_files` is what writes there.
"""

from dataclasses import dataclass

from convmix.config import Run
from convmix.data.facts import DataFacts
from convmix.models.published_files import Say, cached, fetch, place_of, why_out_of_reach
from convmix.tasks.base import Task
from convmix.training.distributed import from_main

PHOTOS_FROM = 64  # pixels; images whose longer side is not larger have models made for them
MANY_IMAGES = 2_000  # from which the larger model pays, on an accelerator


@dataclass(frozen=True)
class Start:
    """What a new training begins with."""

    model: str | None  # None: the recipe's
    pretrained: bool
    note: str = ""  # for people, one line


def model_for_photos(num_train: int, *, accelerator: bool) -> str:
    """The model with published weights for so many photos on this machine.

    ConvMLP-S where a CPU trains, or where there are few photos: of the published mixers it takes the fewest multiply-adds (2.4 G an
    image at 224 px; ConvMLP-M 3.9 G, the ConvMixers 5.5 to 52 G), and the features of all of them in minutes. ConvMLP-M, 2.2 points
    better on ImageNet as published, on an accelerator from `MANY_IMAGES` on.
    """
    return "convmlp_m" if accelerator and num_train >= MANY_IMAGES else "convmlp_s"


def choose_start(
    asked: Run, facts: DataFacts, kind: type[Task], *, named_model: str | None, named_recipe: bool, accelerator: bool
) -> Start:
    """asked: the settings as the user gave them, on the recipe that was named or the default one; facts: of the data, read by now."""
    if asked.net.weights is not None or asked.net.pretrained == "no":
        return Start(named_model, False)
    is_photos = max(facts.height, facts.width) > PHOTOS_FROM and facts.in_chans == 3
    if asked.net.pretrained == "yes":
        fits = kind.finetunes is not None and not named_recipe and named_model is None and is_photos
        return Start(model_for_photos(facts.num_train, accelerator=accelerator) if fits else named_model, True)
    if named_recipe or kind.finetunes is None or not is_photos:
        return Start(named_model, False)
    name = named_model or model_for_photos(facts.num_train, accelerator=accelerator)
    place = place_of(name)
    if place is None:
        better = model_for_photos(facts.num_train, accelerator=accelerator)
        return Start(
            named_model, False, f"{name} starts at random: it has no published weights; {better} has, and usually wins on few photos"
        )
    if why := from_main(lambda: why_out_of_reach(place)):
        return Start(
            named_model, False,
            f"starts at random, where the published weights of {name} would have been better: {why}; fetch {place.address} elsewhere "
            f"and give it with --model {name} --weights FILE",
        )  # fmt: skip
    return Start(name, True)


def bring_weights(name: str, *, say: Say) -> None:
    """Fetch the published weights of `name` into the cache where they are not; a model without any is left to whoever builds it."""
    place = place_of(name)
    if place is not None and cached(place) is None:
        from_main(lambda: fetch(place, say=say), takes_long=True)
