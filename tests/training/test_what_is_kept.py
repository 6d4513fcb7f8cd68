"""What a training leaves behind: the weights that were judged, and the images that could not be read any more."""

import csv
import itertools

import torch
from safetensors.torch import load_file

import convmix
from convmix.training import session
from convmix.training.state import seed_step, step_seed
from tests.tiny_run import write_folder

TINY = {
    "model": "convmixer_16_1_k3_p4", "size": 16, "batch_size": 4, "precision": "fp32", "workers": 0, "tune": "never", "quiet": True,
}  # fmt: skip


def test_the_moving_average_is_what_is_kept(tmp_path):
    """In steps of 0.99 it is still near the first weights, where the network itself has left them."""
    photos = write_folder(tmp_path / "photos", {"ant": 10, "bee": 10}, seed=3)
    run = convmix.train(photos, out=tmp_path / "run", epochs=2, ema_decay=0.99, keep="last", save_every=1, **TINY)
    kept, state = load_file(run.path / "model.safetensors"), load_file(run.path / "state" / "last.safetensors")
    average = {name.removeprefix("ema."): tensor for name, tensor in state.items() if name.startswith("ema.")}
    own = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    assert kept.keys() == average.keys() == own.keys()
    assert all(torch.equal(kept[name], average[name]) for name in kept)
    assert not torch.equal(kept["head.weight"], own["head.weight"])


def test_an_image_that_becomes_unreadable_is_listed(tmp_path, monkeypatch):
    photos = write_folder(tmp_path / "photos", {"ant": 10, "bee": 10}, seed=3)
    real = session.new_job

    def spoiled(*arguments, **options):
        job = real(*arguments, **options)
        split = job.splits["train"]
        (photos / split.name(0)).write_bytes(b"no image any more")
        return job

    monkeypatch.setattr(session, "new_job", spoiled)
    run = convmix.train(photos, out=tmp_path / "run", epochs=1, **TINY)
    with (run.path / "bad_images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 and rows[0]["split"] == "train" and (photos / rows[0]["name"]).read_bytes() == b"no image any more"


def test_every_step_and_process_draws_on_its_own():
    seeds = {step_seed(seed, step, rank) for seed, step, rank in itertools.product(range(3), range(50), range(4))}
    assert len(seeds) == 3 * 50 * 4
    seed_step(0, 7, 0)
    drawn = torch.rand(3)
    seed_step(0, 8, 0)
    assert not torch.equal(drawn, torch.rand(3))
