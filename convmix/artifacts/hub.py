"""Trained models to and from the Hugging Face Hub, or a folder that stands in for it.

    run --push--> weights, both descriptions, card and curves --pull--> a model directory that predict, serve and export take

What tells of single images stays at home: the list of the images (splits.csv), evaluation pages, the state of the training. Paths of the
machine are cut to their last part. timm.create_model("hf-hub:OWNER/NAME") reads what is pushed, as the card says.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from convmix.artifacts.artifact import load_artifact
from convmix.artifacts.card import model_card
from convmix.atomic import is_leftover, remove_leftovers, replacing, write_bytes, write_json
from convmix.cache import expanded
from convmix.errors import ConfigError, RunError, first_line

ENDPOINT: str | None = None  # None: huggingface_hub's own, which HF_ENDPOINT sets
TIMEOUT_S = 10.0
NEEDED = ("model.safetensors", "config.json", "convmix.json")
WELCOME = ("README.md", "curves.csv", "curves.png")  # where they are
_FOLDERS = re.compile(r"(?<![\w./:])~?/(?:[^\s/]+/)*")  # of an absolute path inside a text
_ADVICE = {401: "; set HF_TOKEN, or run `hf auth login` once", 403: "; the token may not write there", 404: "; is the name right?"}


def push(run: str | Path, to: str, *, private: bool = True, revision: str | None = None, message: str = "Trained with convmix") -> str:
    """Publish a model directory; its address, or the folder.

    run: a model directory. Its weights, descriptions, card and curves are published; lists of images, evaluation pages and paths are not.
    to: OWNER/NAME on the Hub, or a folder: a path that begins with / . or ~.
    private: whether a repository that is made now is seen by its owner alone; one that exists stays as it is.
    revision: a branch; the main one where it is None.
    message: of the commit.
    Raises RunError for a directory that holds no model and where the Hub cannot be reached or refuses, ConfigError for an impossible name.
    """
    artifact = load_artifact(run)
    if artifact.engine is not None:
        raise RunError(f"{run} is an exported model; push takes the run that it was made from")
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch)
        info = _without_paths(artifact.info)
        _copy(artifact.path, package)
        write_json(package / "convmix.json", info)
        card = model_card(info, json.loads((package / "config.json").read_bytes()))
        write_bytes(package / "README.md", card.encode("utf-8", "backslashreplace"))
        if is_folder(to):
            return str(_copy(package, expanded(to)))
        return _upload(package, _checked(to), private=private, revision=revision, message=message)


def pull(source: str, *, out: str | Path | None = None, revision: str | None = None) -> Path:
    """Fetch a model that `push` published; the model directory, runs/NAME where `out` is None.

    source: OWNER/NAME on the Hub, or a folder: a path that begins with / . or ~.
    out: the model directory to make; None: runs/NAME. revision: a branch, tag or commit; the main branch where it is None.

    Only files that a model directory consists of are taken; nothing that could execute is among them. Raises RunError where there is no
    such model or the Hub cannot be reached, ConfigError for an impossible name; nothing half-fetched stays.
    """
    folder = expanded(source) if is_folder(source) else None
    name = PurePath(source.rstrip("/")).name if folder is None else folder.resolve().name
    place = Path("runs") / name if out is None else Path(out)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise RunError(f"{place} exists already; give another --out")
    if folder is not None and not folder.is_dir():
        raise RunError(f"{folder} is not a folder; give OWNER/NAME for a model of the Hub")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as scratch:
        fetched = Path(scratch) / "model"
        if folder is not None:
            _copy(folder, fetched)
        else:
            _download(_checked(source), fetched, revision=revision)
        load_artifact(fetched)
        if place.is_dir():
            place.rmdir()
        fetched.rename(place)
    return place


def is_folder(place: str) -> bool:
    """Whether the words mean a path rather than OWNER/NAME."""
    return place.startswith(("/", ".", "~"))


def _copy(source: Path, place: Path) -> Path:
    """The files of a model directory, from folder to folder."""
    if missing := [name for name in NEEDED if not (source / name).is_file()]:
        raise RunError(f"{source} is not a model directory: it has no {missing[0]}")
    if place.exists() and (not place.is_dir() or any(_is_foreign(p.name) for p in place.iterdir())):
        raise RunError(f"{place} holds other things than a pushed model; give an empty folder or a new one")
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place, older_than_s=60)  # of a push that was killed; somebody else may be at work
    for name in (*NEEDED, *WELCOME):
        if (source / name).is_file():
            with (source / name).open("rb") as file, replacing(place / name) as copy:  # whoever pulls meanwhile has whole files
                shutil.copyfileobj(file, copy)
    return place


def _is_foreign(name: str) -> bool:
    return name not in (*NEEDED, *WELCOME) and not is_leftover(name)


def _upload(package: Path, repo: str, *, private: bool, revision: str | None, message: str) -> str:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=ENDPOINT, library_name="convmix")
    with _told(repo, "pushed to", api.endpoint):
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=package, revision=revision, commit_message=message)
    return f"{api.endpoint}/{repo}"


def _download(repo: str, place: Path, *, revision: str | None) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=ENDPOINT, library_name="convmix")
    with _told(repo, "pulled from", api.endpoint):
        there = api.list_repo_files(repo, revision=revision)
        if missing := [name for name in NEEDED if name not in there]:
            raise RunError(
                f"{repo} has no {missing[0]}, so it was not pushed by convmix; a timm model is trained on with "
                "`convmix train DATA --model NAME --pretrained yes`"
            )
        for name in (*NEEDED, *(n for n in WELCOME if n in there)):
            api.hf_hub_download(repo, name, revision=revision, local_dir=place, etag_timeout=TIMEOUT_S)
    shutil.rmtree(place / ".cache", ignore_errors=True)  # the client's notes


@contextmanager
def _told(repo: str, what: str, endpoint: str) -> Iterator[None]:
    """RunError in a line for whatever the Hub's client raises."""
    from huggingface_hub.errors import LocalTokenNotFoundError

    try:
        yield
    except RunError:
        raise
    except LocalTokenNotFoundError:
        raise RunError("the Hub wants to know who you are: set HF_TOKEN, or run `hf auth login` once") from None
    except Exception as error:  # a dozen kinds of half a dozen libraries
        status = getattr(getattr(error, "response", None), "status_code", 0)
        reason = first_line(error)
        raise RunError(f"{repo} could not be {what} {endpoint} ({reason}){_ADVICE.get(status, '')}") from None


def _checked(repo: str) -> str:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        if repo.count("/") != 1:
            raise HFValidationError
    except HFValidationError:
        raise ConfigError(
            f"{repo}: expected OWNER/NAME of letters, digits and -_. (at most 96 of them), or a path that begins with / . or ~ for a folder"
        ) from None
    return repo


def _without_paths(value: Any) -> Any:
    """JSON with the paths of this machine cut to their last part."""
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    if isinstance(value, str):
        return PurePath(value).name if value.startswith(("/", "~/", "./", "../")) else _FOLDERS.sub("", value)
    return value
