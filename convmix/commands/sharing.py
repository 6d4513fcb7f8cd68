"""Models that travel: push and pull."""

from typing import Any

from rich.console import Console

from convmix.commands.derived import Changes, Work, command


@command(Work("artifacts.hub", "push"), Changes(negatives={"private": "--public"}))
def push(given: dict[str, Any]) -> None:
    """Publish a model on the Hugging Face Hub, or in a folder."""
    from convmix.artifacts import hub

    Console(highlight=False, soft_wrap=True).print(f"pushed to {hub.push(given.pop('run'), given.pop('to'), **given)}")


@command(Work("artifacts.hub", "pull"))
def pull(given: dict[str, Any]) -> None:
    """Fetch a model that was pushed."""
    from convmix.artifacts import hub

    place = hub.pull(given.pop("source"), **given)
    Console(highlight=False, soft_wrap=True).print(f"pulled into {place}; try: convmix predict {place} IMAGES")
