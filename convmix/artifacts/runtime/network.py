"""An exported graph in the place of a network: images N,C,H,W as the pipeline makes them -> what the task observes."""

from typing import Any

import torch
from torch import Tensor, nn

from convmix.artifacts.runtime.description import FEATURES, ExportDescription
from convmix.artifacts.runtime.sessions import Session
from convmix.data.dense import placement
from convmix.errors import ModelError
from convmix.tasks import create_task


class ExportedNetwork(nn.Module):
    """Has no parameters of its own: it can be neither trained nor explained, and answers on the CPU. ModelError for images that do not fit.

    images: normalised, or levels 0..255 where the graph normalises (`artifacts.runtime.pixels`).
    """

    def __init__(self, description: ExportDescription, session: Session) -> None:
        super().__init__()
        self.description = description
        self.task = create_task(description.task, description.labels)
        self._session = session
        self.features_door = nn.Identity() if FEATURES in description.outputs else None  # what passes, `models.features` can watch

    def forward(self, images: Tensor) -> Any:
        self._check(images)
        with torch.autocast("cpu", enabled=False):
            outputs = {name: torch.from_numpy(array) for name, array in self._session(self.as_taken(images)).items()}
        if self.description.bake == "resize" and "boxes" in outputs:
            outputs["boxes"] = self._on_input(outputs["boxes"], images)
        if self.features_door is not None:
            self.features_door(outputs[FEATURES])
        return self.task.observed_from(outputs)

    def as_taken(self, images: Tensor) -> Any:
        images = images.detach().cpu()
        if self.description.bake == "none":
            return images.float().contiguous().numpy()
        x_nhwc = images.permute(0, 2, 3, 1)
        return (x_nhwc.round().to(torch.uint8) if self.description.is_8bit else x_nhwc.float()).contiguous().numpy()

    def _on_input(self, boxes: Tensor, images: Tensor) -> Tensor:
        """N,D,4 xyxy in the images' own pixels -> in pixels of the network's input, where the pipeline expects them."""
        where = placement(self.description.preprocess, (images.shape[2], images.shape[3]))
        return where.boxes_to_input(boxes.flatten(0, 1)).reshape(boxes.shape)

    def _check(self, images: Tensor) -> None:
        d = self.description
        h, w = d.preprocess.size
        expected = [name if name in d.dynamic else length for name, length in (("N", None), ("height", h), ("width", w))]
        fits = images.ndim == 4 and images.shape[1] == d.preprocess.in_chans
        for axis, length in ((2, expected[1]), (3, expected[2])):
            fits = fits and (isinstance(length, str) or images.shape[axis] == length)
        if not fits:
            shape = f"N,{d.preprocess.in_chans},{expected[1]},{expected[2]}"
            raise ModelError(f"this exported model takes images {shape}, got {','.join(map(str, images.shape))}")
