"""Models that travel: push and pull."""

from pathlib import Path

from rich.console import Console


def push(run: Path, to: str, /, *, public: bool = False, revision: str | None = None, message: str = "Trained with convmix") -> None:
    """Publish a model on the Hugging Face Hub, or in a folder.

    Parameters
    ----------
    run:
        A model directory. Its weights, descriptions, card and curves are published; lists of images, evaluation pages and paths are not.
    to:
        OWNER/NAME on the Hub, or a folder: a path that begins with / . or ~.
    public:
        Whether a repository that is made now can be seen by everybody; one that exists stays as it is.
    revision:
        A branch; the main one where it is left out.
    message:
        Of the commit.
    """
    from convmix.artifacts import hub

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"pushed to {hub.push(run, to, private=not public, revision=revision, message=message)}")


def pull(source: str, /, *, out: Path | None = None, revision: str | None = None) -> None:
    """Fetch a model that was pushed.

    Parameters
    ----------
    source:
        OWNER/NAME on the Hub, or a folder: a path that begins with / . or ~.
    out:
        The model directory to make; runs/NAME where it is left out.
    revision:
        A branch, tag or commit; the main branch where it is left out.
    """
    from convmix.artifacts import hub

    place = hub.pull(source, out=out, revision=revision)
    Console(highlight=False, soft_wrap=True).print(f"pulled into {place}; try: convmix predict {place} IMAGES")
