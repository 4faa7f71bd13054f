"""Which queues a worker serves and how it divides its free slots between them."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from windlass.errors import ConfigError
from windlass.model import Quota

_PART = re.compile(r"([A-Za-z0-9_.-]{1,128})(?::([1-9][0-9]{0,3}))?")


class Queues:
    """`""`: every queue. `a,b`: all of a before any of b. `a:3,b:1`: three slots to one while both have jobs."""

    def __init__(self, text: str = "") -> None:
        self.text = text.strip()
        parts = [part.strip() for part in self.text.split(",")] if self.text else []
        found = [_PART.fullmatch(part) for part in parts]
        names = [match[1] for match in found if match]
        weights = [match[2] for match in found if match]
        given = [weight for weight in weights if weight]
        if None in found or len(set(names)) < len(names) or (given and len(given) < len(weights)):
            raise ConfigError(
                f"expected queues as in 'mail,reports' (in this order) or 'mail:3,reports:1' (by weight); {text!r} came"
            )
        self._names = names
        self._weights = dict(zip(names, map(int, given), strict=False))
        self._carried: defaultdict[str, float] = defaultdict(float)

    def quotas(self, slots: int, paused: Collection[str] = (), known: Collection[str] = ()) -> tuple[Quota, ...] | None:
        """The queues' shares of `slots` now, but for paused ones; what was rounded off is carried to the next call.

        A worker of all queues needs to know their names once one is paused; the others then take turns.
        """
        if not self._names and not paused:
            return None
        names = [name for name in self._names or sorted(known) if name not in paused]
        weights = self._weights if self._names else dict.fromkeys(names, 1)
        shares = self._weighted(slots, names, weights) if weights else [slots] * len(names)
        return tuple(Quota(queue=name, share=share) for name, share in zip(names, shares, strict=True))

    def _weighted(self, slots: int, names: Sequence[str], weights: Mapping[str, int]) -> list[int]:
        total = sum(weights[name] for name in names)
        shares = dict.fromkeys(names, 0)
        for name in names:
            self._carried[name] += slots * weights[name] / total
        for _ in range(slots if names else 0):
            richest = max(names, key=self._carried.__getitem__)
            shares[richest] += 1
            self._carried[richest] -= 1
        return list(shares.values())
