"""Real pictures, and a data set with every fault planted into them, made once for all workers."""

import pickle
import sys
import tarfile
from pathlib import Path

import pytest
from planted import Planted, plant

from convmix.audit.doctor import Examination, doctor
from tests.made_once import MadeOnce

sys.path.append(str(Path(__file__).parents[1] / "data"))  # written.py: the same pictures in every form of a data set


@pytest.fixture(scope="session")
def real_photos(shared: Path, made_once: MadeOnce) -> list[Path]:
    """2,097 JPEGs of 160 px: ants, bees and ten classes of ImageNet; read only."""

    def extract(folder: Path) -> None:
        for name in ("hymenoptera160", "imagenette160"):
            with tarfile.open(shared / "data" / f"{name}.tar.gz") as archive:
                archive.extractall(folder, filter="data")

    return sorted(made_once("real_photos", extract).rglob("*.[jJ][pP]*[gG]"))


@pytest.fixture(scope="session")
def planted(real_photos: list[Path], made_once: MadeOnce) -> Planted:
    """360 clean photos with every fault planted among them; read only."""

    def make(folder: Path) -> None:
        note = plant(folder / "photos", real_photos[::5][:360])
        (folder / "planted.pickle").write_bytes(pickle.dumps(note))

    return pickle.loads((made_once("planted", make) / "planted.pickle").read_bytes())  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def examined(planted: Planted, made_once: MadeOnce) -> Examination:
    """What is found in `planted`; read only."""

    def examine(folder: Path) -> None:
        found = doctor(planted.root, output=folder / "found", workers=0)
        (folder / "examination.pickle").write_bytes(pickle.dumps(found))

    return pickle.loads((made_once("examined", examine) / "examination.pickle").read_bytes())  # type: ignore[no-any-return]
