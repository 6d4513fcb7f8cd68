"""Of boxes that overlap keep the best: greedy non-maximum suppression without a shape that depends on the boxes.

    few of many:   boxes N,K,4 -> the best, and none that it suppresses; the best of those left; ... -> N,count
    most of some:  boxes N,K,4, best first -> which would suppress which N,K,K -> which stay N,K

Exporters take it for any N, unlike an operator whose output is as long as its answer. `torchvision.ops.nms` is the reference. Both are
exact: a network trained on crowded pictures has 10,000 candidates an image, and cutting these down first changes what is found.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def best_apart(count: int, boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> dict[str, Tensor]:
    """The best boxes of which none overlaps a better one of its label by more than `iou`: `boxes`, `scores`, `labels` N,count, best first,
    and 0 where there are no more.

    boxes: N,K,4 xyxy, in any order. scores: N,K, 0 where there is no box, only its place. labels: N,K int64.
    """

    def some_left(step: Tensor, left: Tensor, *_: Tensor) -> Tensor:
        return (step < count) & (left > 0).any()

    def take(step: Tensor, left: Tensor, places: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """left: N,K scores of the boxes that may still be taken. places: N,count, those of the boxes taken, K before."""
        best, place = left.max(1, keepdim=True)  # N,1
        near = pairwise_iou(rows(boxes, place), boxes)[:, 0] > iou  # N,K
        taken = torch.arange(left.shape[1], device=left.device) == place
        left = torch.where((near & (labels == rows(labels, place))) | taken, 0.0, left)
        here = (torch.arange(count, device=left.device) == step) & (best > 0)  # N,count
        return step + 1, left, torch.where(here, place, places), boxes.clone(), labels.clone()

    nowhere = torch.full_like(labels[:, :1], boxes.shape[1]).expand(-1, count).clone()
    _, _, places, *_ = repeated(some_left, take, (torch.zeros((), dtype=torch.int64, device=boxes.device), scores, nowhere, boxes, labels))
    there = places < boxes.shape[1]
    return taken_rows(places.clamp(max=boxes.shape[1] - 1), there, {"boxes": boxes, "scores": scores, "labels": labels})


def overlaps(boxes: Tensor, iou: float, *, real: Tensor) -> Tensor:
    """Whether box j would suppress box i, being better and sharing more than `iou` with it: N,K,K bool, j before i.

    boxes: N,K,4 xyxy, best first. real: N,K bool, false where there is no box, only its place.
    """
    place = torch.arange(boxes.shape[1], device=boxes.device)
    return (pairwise_iou(boxes, boxes) > iou) & (place[:, None] < place) & real[:, :, None]


def survivors(suppressions: Sequence[Tensor]) -> list[Tensor]:
    """Which boxes stay, those that none which stays suppresses: of several sets of boxes N,K bool each, from what `overlaps` gives.

    Whether box i stays follows from the better ones alone: stays(i) = not any(stays(j) and overlaps(j, i) for j < i). Starting from all,
    t rounds over all boxes settle each that ends a chain of at most t, and rounds go on until one changes nothing: the one solution there
    is. Some ten rounds do where hundreds of anchors crowd around every object, K at worst.
    """
    sets = len(suppressions)

    def changed(*state: Tensor) -> Tensor:
        return torch.stack([(now != before).any() for now, before in zip(state[:sets], state[sets : 2 * sets], strict=True)]).any()

    def once_more(*state: Tensor) -> tuple[Tensor, ...]:
        """state: what stays now, what stayed before, and what never changes."""
        stays, would = state[:sets], state[2 * sets :]
        now = [~(w & s[:, :, None]).any(1) for w, s in zip(would, stays, strict=True)]
        return (*now, *(t.clone() for t in (*stays, *would)))

    everyone = [torch.ones_like(would[:, 0]) for would in suppressions]
    return list(repeated(changed, once_more, (*everyone, *(~stays for stays in everyone), *suppressions))[:sets])


def repeated(go_on: Callable[..., Tensor], step: Callable[..., tuple[Tensor, ...]], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """step(*state) in place of `state` as long as go_on(*state), a bool without dimensions; inside an exported graph, a loop.

    All that the functions read is in the state, and nothing that they return is what they were given: OpenVINO wants the one, and torch
    the other.
    """
    if torch.compiler.is_exporting():
        last: tuple[Tensor, ...] = torch.while_loop(go_on, step, state)
        return last
    while go_on(*state):  # where while_loop would compile itself, and again for every size
        state = step(*state)
    return state


def first(count: int, stays: Tensor, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first `count` rows, K at most, of each table N,K,... where `stays`, N,K bool, is true, then zeros: N,count,..."""
    room = stays.shape[1]
    backwards = torch.arange(room, 0, -1, device=stays.device)
    rank = torch.where(stays, backwards, backwards - room)  # all different, so that no engine orders them another way
    places = rank.topk(count).indices
    return taken_rows(places, stays.gather(1, places), tables)


def taken_rows(places: Tensor, there: Tensor, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each table N,K,... the rows at `places` N,n, and zeros where `there`, N,n bool, is false: N,n,..."""
    chosen = {name: rows(table, places) for name, table in tables.items()}
    return {name: torch.where(there.reshape(*there.shape, *[1] * (t.ndim - 2)), t, torch.zeros_like(t)) for name, t in chosen.items()}


def rows(table: Tensor, places: Tensor) -> Tensor:
    """table N,K,..., places N,n -> N,n,...: each image's own."""
    return table.gather(1, places.reshape(*places.shape, *[1] * (table.ndim - 2)).expand(-1, -1, *table.shape[2:]))


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Shared area over joint area: N,K,4 and N,M,4 xyxy -> N,K,M; nan for two boxes without area, which is above nothing."""
    left, top, right, bottom = boxes[:, :, None].unbind(3)  # N,K,1 each
    left2, top2, right2, bottom2 = others[:, None].unbind(3)  # N,1,M each
    width, height = torch.minimum(right, right2) - torch.maximum(left, left2), torch.minimum(bottom, bottom2) - torch.maximum(top, top2)
    shared = width.clamp(min=0) * height.clamp(min=0)
    return shared / ((right - left) * (bottom - top) + (right2 - left2) * (bottom2 - top2) - shared)
