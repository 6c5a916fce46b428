"""`/tsunagu/why`: what Docker's API has no question for."""

from __future__ import annotations

from typing import Any

from tsunagu.api.request import Request, Response, json_response
from tsunagu.api.router import Route
from tsunagu.model.errors import InvalidParameter
from tsunagu.services.why import Verdict


async def why(request: Request) -> Response:
    """Tell whether `from` reaches `to` (a name, an address, `host`, `outside`), and the first cause if not."""
    source, target = request.text("from"), request.text("to")
    if not source or not target:
        raise InvalidParameter("the parameters from and to are required")
    verdict = await request.app.why.explain(
        source, target, protocol=request.text("protocol"), port=request.number("port") or 0
    )
    return json_response(_json(verdict))


def _json(verdict: Verdict) -> dict[str, Any]:
    return {
        "Reachable": verdict.allowed,
        "Reason": verdict.reason.code,
        "Sentence": verdict.sentence,
        "Remedy": verdict.hint,
        "Documentation": verdict.documentation,
        "Addresses": list(verdict.addresses),
        "Containers": list(verdict.holders),
        "Steps": [{"Ok": step.is_ok, "Text": step.text, "Reason": step.code} for step in verdict.steps],
        "Warnings": list(verdict.warnings),
        "Counter": _counter_json(verdict),
    }


def _counter_json(verdict: Verdict) -> dict[str, Any] | None:
    if verdict.rule is None or verdict.counter is None:
        return None
    return {
        "Rule": verdict.rule.reason.code,
        "Verdict": verdict.rule.verdict.value,
        "Packets": verdict.counter.packets,
        "Bytes": verdict.counter.bytes,
    }


ROUTES = (Route("GET", "/tsunagu/why", why, is_cancellable=True),)
