"""predict.py: what is written beside an exported model, so that it answers with its engine and numpy alone.

Put together from three parts: how the engine is opened, what is left of the preprocessing, and how an answer is printed.
"""

from convmix.artifacts.runtime.description import ExportDescription
from convmix.data.decode import MODES
from convmix.results import Boxes, Classes, ImageLabels, SemanticMap
from convmix.tasks import task_class

FILE = "predict.py"

_OPEN = {
    "onnx": (
        "import onnxruntime",
        'session = onnxruntime.InferenceSession(str(here / model["file"]), providers=["CPUExecutionProvider"])\n'
        'run = lambda images: dict(zip(model["outputs"], session.run(None, {"images": images})))',
    ),
    "openvino": (
        "import openvino",
        "{hint}"
        'compiled = openvino.Core().compile_model(str(here / model["file"]), "CPU", settings)\n'
        'run = lambda images: dict(zip(model["outputs"], compiled(images).values()))',
    ),
    "torch": (
        "import torch",
        'program = torch.export.load(str(here / model["file"])).module()  # only of somebody you trust: see docs/how_to/export.md\n'
        "run = lambda images: {name: value.numpy() for name, value in program(torch.from_numpy(images)).items()}",
    ),
}
_HINTS = {"fp32": "f32", "bf16": "bf16"}

_PRINT: dict[type, str] = {
    Classes: (
        'best = int(found["probabilities"][0].argmax())\n'
        'probability, label = float(found["probabilities"][0][best]), model["labels"][best]\n'
        'sure = probability >= (model["threshold"] or 0)\n'
        'print(name, label if sure else f"not sure ({label})", f"{probability:.6f}", sep="\\t")'
    ),
    ImageLabels: (
        'thresholds = (model["calibration"] or {}).get("thresholds") or [0.5] * len(model["labels"])\n'
        'for label, probability, least in zip(model["labels"], found["probabilities"][0], thresholds):\n'
        "    if probability >= least:\n"
        '        print(name, label, f"{probability:.6f}", sep="\\t")'
    ),
    Boxes: (
        'for box, score, label in zip(found["boxes"][0], found["scores"][0], found["labels"][0]):\n'
        "    if score >= 0.5:\n"
        '        print(name, model["labels"][label], f"{score:.6f}", *(f"{edge:.2f}" for edge in box), sep="\\t")'
    ),
    SemanticMap: (
        'classes = found["classes"][0] if "classes" in found else found["logits"][0].argmax(0)\n'
        'for column, label in enumerate(model["labels"]):\n'
        '    print(name, label, f"{(classes == column).mean():.6f}", sep="\\t")'
    ),
}


def script(description: ExportDescription) -> str:
    """The source of predict.py."""
    imports, opens = _OPEN[description.engine]
    precision = _HINTS.get(description.precision)
    hint = f'settings = {{"INFERENCE_PRECISION_HINT": "{precision}"}}\n' if precision else "settings = {}\n"
    result = task_class(description.task).result
    prints = next(text for kind, text in _PRINT.items() if issubclass(result, kind))
    indented = "\n".join(f"    {line}" for line in prints.splitlines())
    return f'''"""Answers for images, without convmix: python predict.py IMAGE ...

IMAGE: {_takes(description)}
"""

import json
import sys
from pathlib import Path

{_third_party(imports)}

here = Path(__file__).parent
model = json.loads((here / "model.json").read_text(encoding="utf-8"))
{opens.replace("{hint}", hint)}


def load(name):
    """H,W,C pixels."""
    if name.endswith(".npy"):
        return np.load(name)
{_picture(description)}

for name in sys.argv[1:]:
    image = load(name)
{_prepared(description)}
    found = run(images)
{indented}
'''


def _third_party(engine: str) -> str:
    return "\n".join(sorted(["import numpy as np", engine], key=lambda line: line.split()[1]))


def _takes(description: ExportDescription) -> str:
    height, width = description.preprocess.size
    size = "" if description.bake == "resize" else f" of {height}x{width} pixels"
    kind = "uint8" if description.is_8bit else "float32, 0..1"
    files = "; any picture where Pillow is installed" if description.is_8bit else ""
    return f"a .npy file H,W,{description.preprocess.in_chans} ({kind}){size}{files}"


def _picture(description: ExportDescription) -> str:
    if not description.is_8bit:
        return '    raise SystemExit(f"{name}: expected a .npy file")\n'
    mode = MODES[description.preprocess.in_chans]
    low, high = map(int, description.preprocess.value_range or (0, 65535))
    lines = [
        "from PIL import Image, ImageOps",
        "",
        "picture = ImageOps.exif_transpose(Image.open(name))",
        'if picture.mode.startswith("I"):  # 16 bits',
        f"    steps = (np.asarray(picture).astype(np.int64).clip({low}, {high}) - {low}) * 510",
        f"    picture = Image.fromarray(((steps + {high - low}) // {2 * (high - low)}).astype(np.uint8))",
        'picture = picture.convert("RGBA")',
    ]
    if mode != "RGBA":  # as convmix does: what is transparent lies on white
        lines.append(f'picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("{mode}")')
    lines.append("return np.asarray(picture)" + ("[:, :, None]" if mode == "L" else ""))
    return "\n".join(f"    {line}" if line else "" for line in lines) + "\n"


def _prepared(description: ExportDescription) -> str:
    """What is left to do: nothing but an axis for the batch, or what the graph does not do."""
    if description.bake == "resize":
        return "    images = image[None]"
    lines = [
        'size = model["preprocess"]["size"]',
        "if list(image.shape[:2]) != size:",
        '    raise SystemExit(f"{name}: {image.shape[0]}x{image.shape[1]} pixels, this model takes {size}; resize it first")',
    ]
    if description.bake == "normalise":
        lines.append("images = image[None]")
    else:
        divide = " / 255" if description.is_8bit else ""
        lines += [
            'mean, std = (np.array(model["preprocess"][key], np.float32) for key in ("mean", "std"))',
            f"images = ((image{divide} - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]",
        ]
    return "\n".join(f"    {line}" for line in lines)
