"""A worker's rows are those of `convmix predict`."""

import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from dense_scenes import CLASSES, scene
from large_inputs import BROKEN, encoded, write_shard
from PIL import Image
from tiny_run import make_run

from convmix.artifacts.artifact import load_artifact, save_artifact
from convmix.batch_inference.actor import BlockWork, Labeller, ahead, chunks
from convmix.batch_inference.blocks import divide
from convmix.batch_inference.listing import entries
from convmix.batch_inference.manifest import Settings, open_job
from convmix.batch_inference.packaging import pack
from convmix.batch_inference.partitions import Tally
from convmix.batch_inference.storage import Folder
from convmix.config import Dense
from convmix.data.preprocessing import Preprocess
from convmix.inference.prediction import predict
from convmix.tasks import create_task

SETTINGS = Settings(top=1, threshold=0.0, precision="fp32", part_size=10, image_column=None, name_column=None)


def dense_run(path: Path, name: str) -> Path:
    """A model directory of a task, with the weights of the beginning."""
    torch.manual_seed(0)
    task = create_task(name, CLASSES)
    model = task.build("convmixer_8_1_k3_p4", in_chans=3, dense=Dense(pyramid_channels=16), model_args=None)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.02)  # a detector as it begins sees nothing anywhere; larger weights blow its boxes up
    prepare = Preprocess((64, 64), "letterbox", "bilinear", 1.0, (0.5,) * 3, (0.25,) * 3)
    save_artifact(path, model=model, task=task, preprocess=prepare, info={"run": {"dense": {"pyramid_channels": 16}}})
    return path


def label(run: Path, data: Path, output: Path, *, threads: int = 1) -> Tally:
    """A worker's work in this process: the only partition there is."""
    folder = Folder(output)
    blocks = divide(entries(str(data)), part_size=10, image_column=None, name_column=None)
    manifest, division = open_job(folder, blocks, data=str(data), model="", settings=SETTINGS)
    work = BlockWork(str(folder), "", manifest.key, SETTINGS, batch_size=2, threads=threads, device="cpu")
    return Labeller(pack(load_artifact(run), run), work, "here").compute(0, division.span(0))


@pytest.mark.parametrize(("name", "threads"), [("detect", 1), pytest.param("instances", 1, marks=pytest.mark.slow), ("segment", 2)])
def test_dense_rows_are_those_of_predict(name: str, threads: int, tmp_path: Path) -> None:
    run, data = dense_run(tmp_path / "run", name), tmp_path / "data"
    data.mkdir()
    for i in range(3):
        Image.fromarray(scene(i)[0][:, : 64 - 8 * i]).save(data / f"{i}.png")
    (data / "3.png").write_bytes(BROKEN)
    tally = label(run, data, tmp_path / "out", threads=threads)

    rows: list[dict[str, Any]] = pq.read_table(tmp_path / "out/part-00000.parquet").to_pylist()
    expected = [row.to_dict() for row in predict(run, [data], threshold=0.0, precision="fp32", batch_size=2, workers=0)]
    assert [{k: v for k, v in row.items() if v is not None or k == "error"} for row in rows] == expected
    assert (tally.rows, tally.bad, tally.worker) == (4, 1, "here") and any(row.get("objects") or row.get("shares") for row in rows)


def test_a_shard_holds_what_predict_says_of_the_same_bytes(tmp_path: Path) -> None:
    """The shard breaks off in its third image: two answers, the third's reason, and a row for the shard."""
    run = make_run(tmp_path / "run").path
    members = [(f"{i}.png", encoded(tmp_path, i)) for i in range(4)]
    shard = write_shard(tmp_path / "data/s.tar", members)
    with tarfile.open(shard) as archive:
        end = archive.getmember("2.png").offset_data + 40
    shard.write_bytes(shard.read_bytes()[:end])
    label(run, shard, tmp_path / "out")
    for i, content in members:
        (tmp_path / i).write_bytes(content)
    expected = predict(run, [tmp_path / f"{i}.png" for i in range(2)], precision="fp32", optimize="never", workers=0)
    rows = pq.read_table(tmp_path / "out/part-00000.parquet").to_pylist()
    assert [r["name"] for r in rows] == [f"{shard}/{i}.png" for i in range(3)] + [str(shard)]
    for row, answer in zip(rows, expected, strict=False):
        assert row["label"] == answer.label and row["probability"] == pytest.approx(answer.probability, abs=1e-6)
    assert rows[2]["error"] == "truncated" and "cannot be read to its end" in rows[3]["error"]


def test_chunks_and_ahead_lose_nothing() -> None:
    assert list(ahead(chunks(iter(range(7)), 3))) == [[0, 1, 2], [3, 4, 5], [6]]

    def fails() -> Any:
        yield [1]
        raise OSError("gone")

    taken = ahead(fails())
    assert next(taken) == [1]
    with pytest.raises(OSError, match="gone"):
        next(taken)
