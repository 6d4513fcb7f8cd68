"""What an examination can find, how bad each kind is, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["harmful", "look"]  # spoils training or its result; or: a person should look at it


@dataclass(frozen=True)
class Kind:
    """One kind of finding."""

    name: str
    severity: Severity
    means: str  # a plain sentence
    advice: str  # what to do, a plain sentence


@dataclass(frozen=True)
class Finding:
    """One thing that was found, about one image, about two, or (where `image` is empty) about a class."""

    kind: str
    image: str
    split: str  # "all": data without splits; "": no image of the data set, or all splits
    label: str
    about: str
    other: str = ""  # the image that this one is like
    other_split: str = ""
    other_label: str = ""
    at: int = -1  # position in the facts, and that of the other image
    beside: int = -1

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity


_LOOKED_AT = "Look at them: pictures can be alike and yet not the same."
KINDS = {
    kind.name: kind
    for kind in (
        Kind("truncated", "harmful", "The file ends too early.", "Fetch it again; training and --fix leave it out."),
        Kind("unreadable", "harmful", "The file is not an image, or one that cannot be used.", "Mend it; training and --fix leave it out."),
        Kind("leak", "harmful", "The same picture is in two splits, so the result looks better than it is.",
             "--fix takes it out of the split that is learned from, never out of test."),
        Kind("near leak", "harmful", "Nearly the same picture is in two splits: resized, re-encoded, mirrored, of other brightness.",
             f"{_LOOKED_AT} --fix takes it out of the split that is learned from, never out of test."),
        Kind("label conflict", "harmful", "The same picture has two labels.", "Decide; --fix leaves all of them out, except in test."),
        Kind("near label conflict", "harmful", "Nearly the same picture has two labels.", f"{_LOOKED_AT} --fix leaves them as they are."),
        Kind("constant", "harmful", "All pixels are alike: nothing can be learned from it.", "Leave it out; --fix leaves it as it is."),
        Kind("probable label error", "look", "A model that was not trained on it is sure of another label.",
             "Look at them and mend the labels that are wrong; --fix leaves them as they are."),
        Kind("probable missing label", "look", "Probably has a label that nobody gave it: others like it have it, or a model says so.",
             "Look at them and add the labels that are missing; --fix leaves them as they are."),
        Kind("never together", "look", "Two labels that chance would bring together are never on one image.",
             "They may exclude each other; if not, one is left out where the other is given."),
        Kind("class balance", "look", "Classes that are rare, missing from a split, or unevenly split.",
             "Add images, or train with --balanced; accuracy per class tells more than accuracy."),
        Kind("duplicate", "look", "The same picture more than once in one split: it counts more than once.", "--fix keeps the first."),
        Kind("near duplicate", "look", "Nearly the same picture in one split: resized, re-encoded, mirrored, of other brightness.",
             f"{_LOOKED_AT} --fix keeps the first where the data has no splits yet, since a split by chance would part them."),
        Kind("near-constant", "look", "Hardly any contrast: fog, a lens cap, an empty scan.",
             "Look at them; --fix leaves them as they are."),
        Kind("tiny", "look", "Much smaller than the others: little is left to see once it is enlarged.",
             "Look for thumbnails among the photos; --fix leaves them as they are."),
        Kind("extreme aspect", "look", "Far longer than high or the other way round: a centre crop shows a small part of it.",
             "Crop it yourself, or train with --fit letterbox; --fix leaves it as it is."),
        Kind("EXIF rotation", "look", "Stored lying or mirrored, with a note how to turn it, which many programs overlook.",
             "convmix turns it upright; --fix stores it so."),
        Kind("wrong extension", "look", "The name says one format, the content is another.",
             "convmix reads it; --fix gives it the right name."),
        Kind("odd mode", "look", "Stored with other channels than most images of the data set.",
             "convmix converts it as said; look whether that keeps what matters."),
        Kind("no example", "look", "A file that is in the data set but no labelled image.",
             "Check that none of them should have been one."),
    )
}  # fmt: skip
