"""The explanation methods by name: the one list, for programs, the command line and the server; imports nothing heavy."""

from typing import Literal, get_args

Method = Literal["saliency", "integrated_gradients", "gradcam", "occlusion"]
NAMES: tuple[Method, ...] = get_args(Method)
TITLES: dict[str, str] = {
    "saliency": "saliency",
    "integrated_gradients": "integrated gradients",
    "gradcam": "Grad-CAM",
    "occlusion": "occlusion",
}
