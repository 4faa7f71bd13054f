"""Which ready jobs a demand takes: the heads of all lines, merged. Pure, but for one function that reads the heads."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from windlass.model import Demand, Lane

Head = tuple[int, int, str, int | None]
"""(-priority, rank, id, expires_at): sorts in the order of claiming."""


@dataclass(slots=True)
class Choice:
    """What was picked: ids in order, those found expired, and whether more could have been taken."""

    ids: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    more: bool = False


def choose(
    lines: Iterable[str], demand: Demand, now: int, read: Callable[[str, int], list[Head]], at_most: int
) -> Choice:
    """Pick jobs for `demand` from the ready `lines`; `read(line, n)` gives a line's first n heads."""
    queues: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    wanted = None if demand.quotas is None else {quota.queue for quota in demand.quotas}
    for line in lines:
        queue, _, task = line.partition("/")
        lane = lane_of(task, demand.lanes)
        if lane is not None and (wanted is None or queue in wanted):
            queues["" if wanted is None else queue].append((line, lane))
    choice = Choice()
    free = [lane.slots for lane in demand.lanes]
    slots = min(demand.slots, at_most)
    if demand.quotas is None:
        take(queues[""], slots, free, now, read, choice)
        return choice
    for share in [quota.share for quota in demand.quotas], [slots] * len(demand.quotas):
        for quota, most in zip(demand.quotas, share, strict=True):
            left = min(most, slots - len(choice.ids))
            if left > 0 and queues[quota.queue]:
                take(queues[quota.queue], left, free, now, read, choice)
    return choice


def lane_of(task: str, lanes: tuple[Lane, ...]) -> int | None:
    """The lane with free slots that runs the jobs of this line, if any."""
    suspect = task.endswith("!")
    name = task[:-1] if suspect else task
    for at, lane in enumerate(lanes):
        if lane.slots > 0 and name in (lane.suspects if suspect else lane.tasks):
            return at
    return None


def take(
    lines: list[tuple[str, int]],
    most: int,
    free: list[int],
    now: int,
    read: Callable[[str, int], list[Head]],
    choice: Choice,
) -> None:
    """Move up to `most` heads of these lines into `choice`, best first, within the free slots of their lanes.

    Each line is read only as far as its fair part of a merge needs. Where a line was not read to its end, what lies
    behind its last head is unknown, so nothing worse than that head is taken now.
    """
    if not lines:
        return
    taken = set(choice.ids) | set(choice.expired)
    depth = len(taken) + max(4, -(-2 * most // len(lines)) if len(lines) > 1 else most)
    merged: list[tuple[Head, int]] = []
    limit: Head | None = None
    for line, lane in lines:
        heads = read(line, depth)
        merged += [(head, lane) for head in heads if head[2] not in taken]
        if len(heads) == depth and (limit is None or heads[-1] < limit):
            limit = heads[-1]
    merged.sort(key=lambda entry: entry[0][:3])
    for head, lane in merged:
        if most <= 0:
            break
        if limit is not None and head[:3] > limit[:3]:
            choice.more = True
            break
        if head[3] is not None and head[3] <= now:
            choice.expired.append(head[2])
        elif free[lane] > 0:
            free[lane] -= 1
            most -= 1
            choice.ids.append(head[2])
