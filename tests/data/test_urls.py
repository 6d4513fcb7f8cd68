"""What of a URL may be written down."""

import pytest

from convmix.data.remote.urls import file_system, is_url, redact, restore, without_credentials
from convmix.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ann:secret@host:8443/set/train-{000..009}.tar?signature=a/b@c#x", "https://host:8443/set/train-{000..009}.tar"),
        ("https://token@host/a.tar", "https://host/a.tar"),
        ("http://host/a.tar", "http://host/a.tar"),
        ("http://host/user@example/a.tar", "http://host/user@example/a.tar"),
        ("sftp://ann:secret@host/set/*.tar", "sftp://ann@host/set/*.tar"),
        ("abfs://container@account.dfs.core.windows.net/set/?.tar", "abfs://container@account.dfs.core.windows.net/set/?.tar"),
        ("s3://bucket/set/train-?.tar", "s3://bucket/set/train-?.tar"),
        ("photos/a?b@c", "photos/a?b@c"),
    ],
)
def test_credentials_are_taken_out_and_kept_by_this_process(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
    assert redact(url) == shown
    assert restore(shown) == url


def test_places_that_are_no_urls() -> None:
    assert not any(map(is_url, ("photos", "torchvision:CIFAR10", "C:\\photos", "./a://b")))


def test_a_scheme_that_nobody_knows_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no file system is called memorry, did you mean memory"):
        file_system("memorry://set/a.tar")
