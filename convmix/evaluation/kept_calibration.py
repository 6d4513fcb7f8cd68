"""A new calibration put into a model directory, with the card that speaks of it; a card with other words than ours is left as it is."""

import json

from convmix.artifacts.artifact import Artifact, save_calibration
from convmix.artifacts.card import model_card
from convmix.atomic import write_bytes
from convmix.tasks.label_calibration import AnyCalibration

FOREIGN_CARD = "README.md of the model directory has other words than convmix wrote, so it is left as it is"


def keep(artifact: Artifact, calibration: AnyCalibration) -> None:
    """Replace the directory's calibration, and its card where that is ours; a loaded run learns of it too."""
    is_ours = card_is_ours(artifact)
    save_calibration(artifact.path, calibration)
    artifact.calibration = calibration
    artifact.info = {**artifact.info, "calibration": calibration.to_dict()}
    if is_ours:
        write_bytes(artifact.path / "README.md", _card(artifact))


def card_is_ours(artifact: Artifact) -> bool:
    """Whether nobody has changed the card that convmix wrote."""
    path = artifact.path / "README.md"
    return not path.exists() or path.read_bytes() == _card(artifact)


def _card(artifact: Artifact) -> bytes:
    return model_card(artifact.info, json.loads((artifact.path / "config.json").read_bytes())).encode("utf-8", "backslashreplace")
