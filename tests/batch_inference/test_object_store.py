"""Batch prediction from an object store into an object store: the S3 protocol, served by moto on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from large_inputs import write_everything
from tiny_run import make_run

from convmix.batch_inference import job
from convmix.errors import ConfigError

pytest.importorskip("s3fs", reason="reads s3://; pip install s3fs")
moto_server = pytest.importorskip("moto.server", reason="serves s3://; pip install moto[server]")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),  # Ray's and botocore's
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the environment says reaches the workers too, whose Ray is started by the job."""
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "y"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    yield
    server.stop()


def test_a_bucket_is_labelled_into_a_bucket_and_a_lost_partition_made_again(store: None, tmp_path: Path) -> None:
    import s3fs

    names = write_everything(tmp_path / "data")
    run = make_run(tmp_path / "run").path
    bucket = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    bucket.mkdir("bucket")
    for file in sorted((tmp_path / "data").rglob("*")):
        if file.is_file() and ".made" not in file.parts:
            bucket.put_file(str(file), f"bucket/in/{file.relative_to(tmp_path / 'data')}")

    summary = job.batch_predict(run, "s3://bucket/in", output="s3://bucket/out", part_size=5, workers=2)
    parts = sorted(bucket.glob("bucket/out/part-*.parquet"))
    rows = [row for part in parts for row in pq.read_table(bucket.open(part)).to_pylist()]
    assert sorted(row["name"].replace("s3://bucket/in", str(tmp_path / "data")) for row in rows) == sorted(names)
    assert summary.rows == len(names) and summary.bad == 4 and len(parts) == summary.parts

    bucket.rm_file(parts[1])
    before = {part: bucket.info(part)["LastModified"] for part in parts if part != parts[1]}
    again = job.batch_predict(run, "s3://bucket/in", output="s3://bucket/out", part_size=5, workers=2)
    assert again.rows == summary.rows and 0 < again.computed <= 5
    assert {part: bucket.info(part)["LastModified"] for part in before} == before

    bucket.rm_file("bucket/in/photos/ant/1.png")
    with pytest.raises(ConfigError, match=r"input has changed: s3://bucket/in/photos/ant/1.png is gone"):
        job.batch_predict(run, "s3://bucket/in", output="s3://bucket/out", part_size=5, workers=2)
