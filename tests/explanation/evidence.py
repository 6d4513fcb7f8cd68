"""Images in which only a known patch decides the class, and a small ConvMixer trained on them in a few seconds."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from convmix.artifacts.artifact import Artifact, load_artifact, save_artifact
from convmix.data.preprocessing import Preprocess
from convmix.models.catalog import create_model
from convmix.tasks.classify import Classify

SIDE = 24
PATCH = (slice(12, 18), slice(6, 12))  # rows, columns: 6 x 6 of 24 x 24
AREA = 64 / SIDE**2  # the patch and a pixel around it
LABELS = ("falling", "rising")


def noise(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Grey noise in which the patch is striped along one diagonal or the other: N,3,H,W in -1..1, and the classes N."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 0.3, (count, 3, SIDE, SIDE)).clip(-1, 1)
    targets = rng.integers(0, 2, count)
    rows, columns = np.mgrid[:6, :6]
    for image, target in zip(images, targets, strict=True):
        stripes = np.where((rows + (columns if target else -columns)) % 3 == 0, 0.9, -0.9)
        image[:, PATCH[0], PATCH[1]] = stripes
    return torch.from_numpy(images).float(), torch.from_numpy(targets)


def train(seed: int = 0) -> nn.Module:
    """A ConvMixer that tells the classes apart; only the patch lets it."""
    torch.manual_seed(seed)
    model = create_model("convmixer_16_2_k3_p2", num_classes=2)
    images, targets = noise(256, seed=1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    for epoch in range(6):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(32):
            loss = F.cross_entropy(model(images[rows]), targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval()


def share_on_patch(heat: Tensor) -> float:
    """Share of a map's mass in favour of the class that lies on the patch, a pixel around it included."""
    positive = heat.clamp(min=0)
    rows, columns = (slice(s.start - 1, s.stop + 1) for s in PATCH)
    return float(positive[rows, columns].sum() / positive.sum())


def save_run(path: Path, model: nn.Module, *, labels: tuple[str, ...] = LABELS, side: int = SIDE) -> Artifact:
    """A model directory for images whose pixels 0..255 are -1..1 in the model."""
    prepare = Preprocess((side, side), "stretch", "bicubic", 1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
    save_artifact(path, model=model, task=Classify(labels), preprocess=prepare, info={})
    return load_artifact(path)


def write_files(folder: Path, images: Tensor) -> list[str]:
    """PNG files of images N,3,H,W in -1..1."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()  # N,3,H,W -> N,H,W,3
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    return sorted(str(f) for f in folder.iterdir())
