"""Which training example is shown when: a pure function of (seed, epoch), the same for any number of processes and workers.

    shuffled   any image stands beside any other
    sharded    shards in random order -> LANES equal pieces -> images mixed inside windows of a few shards -> batches of all lanes alike

Sharded, each process reads lanes of its own: every shard goes to one process, whole and within a short time, which is what storage too slow
or too large for random access needs; a shard that a lane ends in goes to two. No process has to know another's shards, and none runs dry
before the others, however unequal the shards are.
"""

import numpy as np

LANES = 64  # the most pieces an epoch is read in at once: so many processes share no shard
SHARDS_PER_LANE = 8  # the fewest: each lane but the last shares a shard with the next one


def steps_per_epoch(n: int, batch_size: int, *, drop_last: bool = True) -> int:
    """Batches in an epoch of `n` examples: full ones, or as many as hold them all; at least one."""
    return max(n // batch_size if drop_last else -(-n // batch_size), 1)


def batch_bounds(n: int, batch_size: int, *, drop_last: bool = True) -> list[int]:
    """Where the epoch's batches begin and end in its order, steps + 1 numbers.

    With `drop_last` full batches, and what is left over is left out; else all of it in batches whose sizes differ by one at most, none
    above `batch_size`: a last batch of a handful would give a noisy step, and nothing at all to some of the processes.
    """
    steps = steps_per_epoch(n, batch_size, drop_last=drop_last)
    return [min(s * batch_size, n) if drop_last else n * s // steps for s in range(steps + 1)]


def epoch_order(labels: np.ndarray, *, seed: int, epoch: int, balanced: bool) -> np.ndarray:
    """The epoch's examples in the order they are shown: a permutation, or as many draws with every class equally often."""
    rng = np.random.default_rng([seed, epoch])
    if not balanced:
        return rng.permutation(len(labels))
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    share, rest = divmod(len(labels), len(members))
    extra = set(rng.permutation(len(members))[:rest].tolist())
    drawn = []
    for c, of_class in enumerate(members):
        count = share + (c in extra)
        rounds = [rng.permutation(of_class) for _ in range(-(-count // len(of_class)))]  # an image repeats once all were shown
        drawn += [i for r in rounds for i in r.tolist()][:count]
    return rng.permutation(np.asarray(drawn, np.int64))


def sharded_order(shards: np.ndarray, bounds: list[int], *, batch_size: int, window: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation in which every lane reads its shards one window after the other; batches as in `bounds`, their images by lane.

    shards: n integers, the shard of every example. window: shards whose images are mixed, the shuffle buffer of each lane.
    """
    rng = np.random.default_rng([seed, epoch])
    n = len(shards)
    numbers, shard = np.unique(shards, return_inverse=True)
    place = rng.permutation(len(numbers))[shard]  # of the example's shard among all
    stream = np.lexsort((rng.random(n), place))  # shard after shard
    lanes = _lanes(len(numbers), batch_size)
    turn = np.arange(n)  # the lanes take turns: the turn-th image comes from lane turn % lanes
    sizes = (n - np.arange(lanes) + lanes - 1) // lanes
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    lane_of = np.repeat(np.arange(lanes), sizes)  # along the stream
    first_place = place[stream[starts % n]]
    window_of = (place[stream] - first_place[lane_of]) // window  # counted from the lane's first shard
    mixed = stream[np.lexsort((rng.random(n), window_of, lane_of))]
    lane = turn % lanes
    taken = mixed[starts[lane] + turn // lanes]
    batch = np.searchsorted(bounds, turn, side="right")
    return taken[np.lexsort((turn, lane, batch))]  # a process's part of a batch is a run of it: whole lanes


def shards_at_once(shards: int, *, batch_size: int, window: int, hosts: int = 1) -> int:
    """How many shards one of `hosts` machines reads at the same time: those of a window of each of its lanes, and the next one's first.

    window: as in `sharded_order`; 0: any image stands beside any other, so all of them.
    """
    return min(shards, -(-_lanes(shards, batch_size) // hosts) * (window + 1)) if window else shards


def _lanes(shards: int, batch_size: int) -> int:
    """A power of two, so that 2, 4, 8 ... processes have whole lanes; their number changes nothing, since it is not asked for."""
    lanes = 1
    while lanes < LANES and shards >= 2 * lanes * SHARDS_PER_LANE and batch_size % (2 * lanes) == 0:
        lanes *= 2
    return lanes
