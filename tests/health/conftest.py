"""Real pictures, and a data set with every fault planted into them."""

import sys
import tarfile
from pathlib import Path

import pytest
from planted import Planted, plant

from convmix.health.examination import Examination, doctor

sys.path.append(str(Path(__file__).parents[1] / "data"))  # written.py: the same pictures in every form of a data set


@pytest.fixture(scope="session")
def real_photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """2,097 JPEGs of 160 px: ants, bees and ten classes of ImageNet; read only."""
    folder = tmp_path_factory.mktemp("real")
    for name in ("hymenoptera160", "imagenette160"):
        with tarfile.open(shared / "data" / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return sorted(folder.rglob("*.[jJ][pP]*[gG]"))


@pytest.fixture(scope="session")
def planted(real_photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """360 clean photos with every fault planted among them; read only."""
    return plant(tmp_path_factory.mktemp("planted") / "photos", real_photos[::5][:360])


@pytest.fixture(scope="session")
def examined(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Examination:
    """What is found in `planted`; read only."""
    return doctor(planted.root, output=tmp_path_factory.mktemp("examined") / "found", workers=0)
