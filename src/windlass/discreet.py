"""What holds payloads shows none of them."""

from msgspec import Struct


class Discreet(Struct, frozen=True):
    """Base of what holds payloads: its repr, which ends in logs and tracebacks, tells how long they are and no more."""

    def __repr__(self) -> str:
        shown = (f"{name}={of_payload(getattr(self, name))}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(shown)})"


def of_payload(value: object) -> str:
    """The repr of a value; of bytes only their number."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else repr(value)
