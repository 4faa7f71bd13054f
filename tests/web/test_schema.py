"""The API as its OpenAPI document says: what that allows is answered as it says, and the rest is refused."""

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.requests import Request

from windlass import App
from windlass.web import Dashboard, Role, User

ADMIN = {"Authorization": "Bearer anna"}

EXAMPLES = int(os.environ.get("WINDLASS_EXAMPLES", "1"))
"""Requests to each operation, of those that are allowed and as many of those that are not. 20 take a minute."""


def who(request: Request) -> User | None:
    return User("anna", Role.ADMIN) if request.headers.get("authorization") == ADMIN["Authorization"] else None


@pytest.mark.parametrize("mode", GenerationMode, ids=str)
def test_every_operation(app: App, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", Dashboard(app, auth=who), headers=ADMIN)
    wrong = []
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        try:
            ask(operation, mode)
        except (Exception, FailureGroup) as error:
            wrong.append(f"{operation.label}: {error}")
    assert not wrong, "\n\n".join(wrong)


def is_sent(case: Case[Any]) -> bool:
    """Whether what is wrong with a request goes over the wire: empty lists and objects stand in no address, and the
    header that says who asks is ours."""
    if any(value in (None, [], {}) for value in case.query.values()):
        return False
    parts = case.meta.components if case.meta else {}
    wrong = {part for part, info in parts.items() if info.mode is GenerationMode.NEGATIVE}
    return wrong != {ParameterLocation.HEADER}


def ask(operation: Any, mode: GenerationMode) -> None:
    """Requests to one operation, each with all checks of its answer."""
    unsure: list[Any] = (
        [positive_data_acceptance] if operation.label.startswith("POST /limits") else []
    )  # the app knows them

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def each(case: Case[Any]) -> None:
        if mode is GenerationMode.POSITIVE:
            case.query.pop("after", None)  # no text that somebody makes up leads on
        elif not is_sent(case):
            return
        case.call_and_validate(headers=ADMIN, excluded_checks=unsure)

    each()
