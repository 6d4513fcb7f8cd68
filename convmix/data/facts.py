"""What a data set is, in the numbers that recipes adapt to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataFacts:
    """What a recipe may depend on."""

    num_train: int  # readable training images
    num_classes: int
    height: int  # median over the readable training images, pixels, after EXIF rotation
    width: int
    in_chans: int
    model: str | None = None  # the model that the user asked for, where there is one
    small_object: float | None = None  # median side of the class with the smallest objects, a share of the image's; None: no boxes
    cpu_budget_s: float | None = None  # wall clock that a training on the CPU may take; None: as long as its epochs last, or no CPU
