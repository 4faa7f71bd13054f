"""Changing a schedule that was made at run time: its rule, as text of its own kind, and how it fires."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from windlass.errors import ConfigError
from windlass.options import short
from windlass.schedule import CatchUp, Overlap
from windlass.timing import At, Cron, Every, Rule, at, cron, rrule
from windlass.view import rule_text, rule_zone
from windlass.web.acts import Desk
from windlass.web.guard import user_of
from windlass.web.pages import back, desk_of, form_of, read
from windlass.web.users import User


class Timing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes of a schedule; what is left out stays. `rule`: a cron expression, the seconds of an interval, a rule
    of RFC 5545 or a moment, whichever kind it has; `tz` for those that have a zone. `jitter` in seconds."""

    rule: Annotated[str, Meta(min_length=1, max_length=1_000)] | None = None
    tz: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    jitter: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    catch_up: CatchUp | None = None
    overlap: Overlap | None = None


def changed(rule: Rule, text: str, tz: str | None) -> Rule:
    """A rule of the same kind, from a text. Raises `ConfigError`."""
    try:
        if isinstance(rule, Every):
            interval = timedelta(seconds=float(text))
            return Every(interval=interval, anchor=rule.anchor, start=rule.start, end=rule.end)
        if isinstance(rule, At):
            return at(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        what = "the seconds of an interval" if isinstance(rule, Every) else "a moment such as 2026-01-31T12:00+00:00"
        raise ConfigError(f"expected {what}; {short(text)} came: {error}") from None
    make = cron if isinstance(rule, Cron) else rrule
    return make(text, tz=tz or rule.tz, start=rule.start, end=rule.end)


async def change(desk: Desk, user: User, name: str, timing: Timing) -> None:
    """Change a schedule. Raises `ScheduleNotFound`, `ConfigError`; 409 for one that code declares."""
    one = await desk.app.schedules.aget(name)
    if one.origin:
        raise HTTPException(409, f"schedule {name} is declared in the code of {one.origin}: change it there")
    given: dict[str, Any] = {
        field: value for field in ("jitter", "catch_up", "overlap") if (value := getattr(timing, field)) is not None
    }
    text, tz = timing.rule or rule_text(one.rule), timing.tz or rule_zone(one.rule)
    if (text, tz) != (
        rule_text(one.rule),
        rule_zone(one.rule),
    ):  # a rule that is set begins anew
        given["rule"] = changed(one.rule, text, tz)
    said = ", ".join(f"{field}={value}" for field, value in given.items())
    async with desk.audited(user, "change", f"schedule {name}: {said or 'nothing'}") as note:
        await desk.app.schedules.aupdate(name, **given)
        note.done = 1


async def edit(request: Request) -> Response:
    """The form of a schedule that comes back."""
    name = request.path_params["name"]
    await change(desk_of(request), user_of(request), name, read(Timing, dict(await form_of(request))))
    return back(request, f"/schedules/{name}", "changed")
