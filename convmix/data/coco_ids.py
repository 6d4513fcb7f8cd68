"""The ids of a COCO file's images and categories, kept with the model so that predictions can be scored against that very file.

COCO JSON -> CocoIds -> coco_ids.json in the model directory -> the ids in a prediction's COCO file
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path, PurePath
from typing import Any

FILE = "coco_ids.json"


@dataclass(frozen=True)
class CocoIds:
    """Ids as the data set has them: mostly whole numbers, of no particular order."""

    categories: Mapping[str, Any]  # class name -> id
    images: Mapping[str, Any]  # file, relative to the data set -> id

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"categories": dict(self.categories), "images": dict(self.images)}

    def of_classes(self, labels: Sequence[str]) -> list[Any]:
        """The id of every class; one that the data set did not have gets a new one."""
        fresh = _fresh(self.categories.values())
        return [self.categories[label] if label in self.categories else next(fresh) for label in labels]

    def of_images(self) -> "ImageIds":
        """The ids of files in the order in which they are asked for."""
        return ImageIds(self)

    @cached_property
    def by_name(self) -> Mapping[str, list[str]]:
        """File name -> the files of that name."""
        found: dict[str, list[str]] = defaultdict(list)
        for file in self.images:
            found[PurePath(file).name].append(file)
        return found

    def find(self, path: str) -> Any | None:
        """The id of the file at `path`: of those of its name the one whose folders end its path, else the only one; else None."""
        parts = PurePath(path.replace("\\", "/")).parts
        named = self.by_name.get(parts[-1] if parts else "", [])
        same = [file for file in named if parts[-len(PurePath(file).parts) :] == PurePath(file).parts]
        same = [max(same, key=len)] if same else named
        return self.images[same[0]] if len(same) == 1 else None


NO_IDS = CocoIds({}, {})


class ImageIds:
    """Gives every image an id of its own: the data set's where it has one for that file."""

    def __init__(self, known: CocoIds) -> None:
        self._known, self._fresh = known, _fresh(known.images.values())
        self._given: set[Any] = set()

    def __call__(self, path: str) -> Any:
        found = self._known.find(path)
        if found is None or found in self._given:
            return next(self._fresh)
        self._given.add(found)
        return found


def read_coco_ids(run: Path) -> CocoIds:
    """What a model directory keeps of them; none where it was trained on something else: ids then count from 1."""
    try:
        values = json.loads((run / FILE).read_bytes())
        return CocoIds(values["categories"], values["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return NO_IDS


def _fresh(taken: Any) -> Iterator[int]:
    return count(max((number for number in taken if isinstance(number, int)), default=0) + 1)
