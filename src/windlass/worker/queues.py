"""Which queues a worker serves and how it divides its free slots between them."""

import re

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
        self._weights = [int(weight) for weight in given]
        self._carried = [0.0] * len(given)

    def quotas(self, slots: int) -> tuple[Quota, ...] | None:
        """The queues' shares of `slots` now; what was rounded off is carried to the next call."""
        if not self._names:
            return None
        shares = self._weighted(slots) if self._weights else [slots] * len(self._names)
        return tuple(Quota(queue=name, share=share) for name, share in zip(self._names, shares, strict=True))

    def _weighted(self, slots: int) -> list[int]:
        total = sum(self._weights)
        self._carried = [
            carried + slots * weight / total for carried, weight in zip(self._carried, self._weights, strict=True)
        ]
        shares = [0] * len(self._weights)
        for _ in range(slots):
            richest = max(range(len(shares)), key=self._carried.__getitem__)
            shares[richest] += 1
            self._carried[richest] -= 1
        return shares
