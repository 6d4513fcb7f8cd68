"""What a data set is, in the five numbers that recipes adapt to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataFacts:
    num_train: int  # readable training images
    num_classes: int
    height: int  # median over the readable training images, pixels, after EXIF rotation
    width: int
    in_chans: int
