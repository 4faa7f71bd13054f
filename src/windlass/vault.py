"""Payloads at rest: sealed under named keys, and opened again. What is sealed, and why: docs/design/encryption.md."""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from msgspec import json
from msgspec.structs import replace

from windlass import limits, policy
from windlass.errors import ConfigError, DecodeError
from windlass.model import Attempt, Claim, Failure, JobRecord, NewJob, Outcome, Patch

PLAIN = "plain"
"""In the place of a key: not encrypted."""

UNIQUE = "unique"
"""The id of the key that unique keys are hashed with. It is never rotated: they have to stay what they are."""

SIZE, NONCE = 32, 12
"""Bytes of a key, and of a nonce."""

MARK = "sealed:"
"""What every sealed value begins with; nothing in JSON does."""

ENTRY = re.compile(r"([A-Za-z0-9_.-]{1,64}):([A-Za-z0-9+/_-]+=*)")
SEALED = re.compile(rf"{MARK}([A-Za-z0-9_.-]{{1,64}}):([A-Za-z0-9_=-]*)")
ENDS = re.compile(r"\.\d+[sfc](?=\.\d+(?:\.|$))")
EXPECTED = "expected keys as in 'k1:BASE64,unique:BASE64', 32 bytes each (`windlass keygen` makes some)"


class Vault:
    """Seals what is stored with the first of its keys, and opens what any of them sealed.

    A sealed value opens only as that field of that job and task. With `plain` among the keys, what is not sealed is
    taken too; without it, nothing else than sealed values is. Without keys nothing is sealed.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        known = parse_keys(keys)
        self._unique = known.pop(UNIQUE, None)
        self._first = next(iter(known), PLAIN)
        self._plain = PLAIN in known or not known
        known.pop(PLAIN, None)
        self._keys: Mapping[str, bytes] = known
        self._cipher: Any = cipher() if known else None
        self.seals = self._first != PLAIN

    def __repr__(self) -> str:
        return f"<Vault of {', '.join(self._keys) or 'no keys'}>"

    # One value

    def seal(self, data: bytes, id: str, task: str, field: str) -> bytes:
        """A value as it is stored with a job."""
        if not self.seals:
            return data
        id = origin(id)
        nonce = os.urandom(NONCE)
        body = self._cipher(of_job(self._keys[self._first], id)).encrypt(nonce, data, place(id, task, field))
        return f"{MARK}{self._first}:".encode() + base64.urlsafe_b64encode(nonce + body)

    def open(self, data: bytes, id: str, task: str, field: str) -> bytes:
        """A value as it was. Raises `DecodeError` where that cannot be told."""
        if not data.startswith(MARK.encode()):
            if self._plain:
                return data
            raise DecodeError(
                f"the stored {field} of this job are not encrypted, and an app with keys takes nothing else. If they "
                "were stored before it had keys, add 'plain' to the end of its keys, and retry the job"
            )
        name, body = split(data)
        id = origin(id)
        if name not in self._keys:
            known = f"this process has only {', '.join(self._keys)}" if self._keys else "this process has no keys"
            raise DecodeError(
                f"the stored {field} of this job are encrypted with key {name!r}; {known}. "
                "Add that key to WINDLASS_KEYS of every process, and retry the job"
            )
        try:
            opened: bytes = self._cipher(of_job(self._keys[name], id)).decrypt(
                body[:NONCE], body[NONCE:], place(id, task, field)
            )
        except Exception:
            raise DecodeError(
                f"the stored {field} of this job cannot be decrypted with key {name!r}: the key is another one of that "
                "name, or they were changed, or made for another job"
            ) from None
        return opened

    def field(self, job: NewJob | JobRecord, field: str) -> bytes | None:
        """One stored field of a job, opened if it is sealed. Raises `DecodeError` where that cannot be done."""
        data: bytes | None = getattr(job, field)
        return self.open(data or b"", job.id, job.task, field) if is_sealed(data) else data

    def unique(self, task: str, value: str) -> str:
        """A unique key as stores see it: a hash, with a key where there are keys, so that nobody can guess it. Keys of
        different tasks never meet: the task's name is part of it."""
        text = f"{task}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._unique, text, "sha256").hex() if self._unique else hashlib.sha256(text).hexdigest()

    def key(self, gate: str, value: str) -> str:
        """The key of a gate as stores see it: a hash where payloads are sealed, else as it is."""
        return self.unique(gate, value) if self.seals else limits.plain(value)

    # What workers take and hand in

    def open_claim(self, claim: Claim) -> Claim:
        """A claim as its task takes it. Raises `DecodeError`."""
        if self._plain and not is_sealed(claim.args) and not is_sealed(claim.options):
            return claim
        args = self.open(claim.args, claim.id, claim.task, "args")
        options = None if claim.options is None else self.open(claim.options, claim.id, claim.task, "options")
        return replace(claim, args=args, options=options)

    def seal_outcome(self, claim: Claim, outcome: Outcome) -> Outcome:
        """An outcome as it is stored: its result, its error's texts and the task's reason are sealed."""
        if not self.seals:
            return outcome
        result, failure, reason = outcome.result, outcome.failure, outcome.reason
        if failure is not None:
            failure = replace(
                failure,
                message=self._seal_text(failure.message, claim, "message"),
                traceback=self._seal_text(failure.traceback, claim, "traceback"),
            )
        if reason is not None and reason not in policy.OWN_REASONS:
            reason = self._seal_text(reason, claim, "reason")
        if result is not None:
            result = self.seal(result, claim.id, claim.task, "result")
        lines = self._seal_text(outcome.lines, claim, "lines")
        return replace(outcome, result=result, failure=failure, reason=reason, lines=lines)

    def seal_patch(self, claim: Claim, patch: Patch) -> Patch:
        """News of a job as they are stored: the numbers stay, the note and the lines are sealed."""
        if not self.seals:
            return patch
        far = patch.progress
        sealed = far and replace(far, note=self._seal_text(far.note, claim, "note"))
        return replace(patch, progress=sealed, lines=self._seal_text(patch.lines, claim, "lines"))

    def _seal_text(self, text: str, claim: Claim, field: str) -> str:
        return self.seal(text.encode(), claim.id, claim.task, field).decode() if text else text

    # What people look at

    def reveal(self, job: JobRecord) -> JobRecord:
        """A job as far as it can be opened here. Other arguments, options and results stay sealed, other texts say that
        they are encrypted."""
        args, options, result = (self._try(job, field) for field in ("args", "options", "result"))
        progress = job.progress and replace(job.progress, note=self._text(job, job.progress.note, "note"))
        return replace(
            job,
            args=args,
            options=options,
            result=result,
            progress=progress,
            lines=self._text(job, job.lines, "lines"),
            reason=job.reason and self._text(job, job.reason, "reason"),
            attempts=tuple(self._attempt(job, one) for one in job.attempts),
        )

    def _try(self, job: JobRecord, field: str) -> bytes | None:
        try:
            return self.field(job, field)
        except DecodeError:
            data: bytes | None = getattr(job, field)
            return data

    def _text(self, job: JobRecord, text: str, field: str) -> str:
        if not text.startswith(MARK):
            return text
        try:
            return self.open(text.encode("utf-8", "replace"), job.id, job.task, field).decode()
        except (DecodeError, UnicodeError):
            return ENCRYPTED

    def _attempt(self, job: JobRecord, attempt: Attempt) -> Attempt:
        attempt = replace(attempt, lines=self._text(job, attempt.lines, "lines"))
        failure = attempt.failure
        if failure is None:
            return attempt
        opened = Failure(
            type=failure.type,
            message=self._text(job, failure.message, "message"),
            traceback=self._text(job, failure.traceback, "traceback"),
        )
        return replace(attempt, failure=opened)


ENCRYPTED = "(encrypted)"
"""What is shown of a sealed value to whoever has not its key."""


def is_sealed(data: bytes | None) -> bool:
    """Whether a stored value is sealed."""
    return data is not None and data.startswith(MARK.encode())


def split(data: bytes) -> tuple[str, bytes]:
    """A sealed value as the id of its key, and nonce with body. Raises `DecodeError`."""
    found = SEALED.fullmatch(data.decode("ascii", "replace"))
    try:
        if found:
            return found[1], base64.urlsafe_b64decode(found[2])
    except binascii.Error:
        pass
    raise DecodeError("a stored value of this job begins as encrypted ones do, but is none: it was cut or changed")


def origin(id: str) -> str:
    """What a job's values are bound to: its id, without the ends of the jobs that it follows. They are sealed when the
    first of those is enqueued, and by then nobody knows how it will end (`ID.1s.0` is sealed as `ID.0`)."""
    return ENDS.sub("", id) if "." in id else id


def of_job(key: bytes, id: str) -> bytes:
    """The key of one job: however many jobs there are, no key seals many messages under random nonces."""
    return hmac.digest(key, b"windlass payload\0" + id.encode("utf-8", "surrogatepass"), "sha256")


def place(id: str, task: str, field: str) -> bytes:
    """What a sealed value is bound to."""
    return json.encode([one.encode("utf-8", "surrogatepass") for one in (id, task, field)])


def cipher() -> Any:
    """AES-256-GCM. Raises `ConfigError` where it is not installed."""
    try:
        return import_module("cryptography.hazmat.primitives.ciphers.aead").AESGCM
    except ModuleNotFoundError:
        raise ConfigError("keys= needs the package cryptography: pip install 'windlass[encrypt]'") from None


def parse_keys(entries: Iterable[str]) -> dict[str, bytes]:
    """Keys by their ids, in order. Raises `ConfigError`, which shows none of them."""
    known: dict[str, bytes] = {}
    for number, entry in enumerate(entries, 1):
        name, key = (PLAIN, b"") if entry == PLAIN else parse_key(entry, number)
        if name in known:
            raise ConfigError(f"{EXPECTED}; two of id {name!r} came")
        known[name] = key
    if known.keys() == {UNIQUE}:
        raise ConfigError(
            f"{EXPECTED}; none that encrypts came, only 'unique'. Add one, or 'plain' to end encryption knowingly"
        )
    if known.keys() - {PLAIN, UNIQUE} and UNIQUE not in known:
        raise ConfigError(
            f"{EXPECTED}; none of id 'unique' came. Unique keys are hashed with that one, which is never rotated"
        )
    return known


def parse_key(entry: str, number: int) -> tuple[str, bytes]:
    """One key and its id. Raises `ConfigError`."""
    found = ENTRY.fullmatch(entry)
    try:
        key = base64.b64decode(found[2].replace("-", "+").replace("_", "/"), validate=True) if found else b""
    except binascii.Error:
        key = b""
    if not found or len(key) != SIZE or found[1] == PLAIN:
        raise ConfigError(f"{EXPECTED}; entry {number} is none")
    return found[1], key


def make_key(name: str) -> str:
    """A new key of that id."""
    return f"{name}:{base64.urlsafe_b64encode(os.urandom(SIZE)).decode()}"
