"""How often each block was begun, for a worker that is killed cannot say so itself. Apart, so that its process need not import torch."""


class Retries:
    """An actor that outlives the workers."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}

    def begin(self, block: int) -> int:
        self._begun[block] = self._begun.get(block, 0) + 1
        return self._begun[block]

    def end(self, block: int) -> None:
        self._begun.pop(block, None)
