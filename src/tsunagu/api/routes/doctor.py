"""`/tsunagu/doctor`: is everything as it should be, and put it right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tsunagu.api.request import Request, Response, json_response
from tsunagu.api.router import Route
from tsunagu.model.checkup import Finding, Level
from tsunagu.services.doctor import Repair


async def examine(request: Request) -> Response:
    """Compare the host with the world; changes nothing."""
    return json_response(_json(await request.app.doctor.examine()))


async def repair(request: Request) -> Response:
    """Put right what can be, then compare again."""
    repairs, findings = await request.app.doctor.repair()
    return json_response(_json(findings, repairs))


def _json(findings: Sequence[Finding], repairs: Sequence[Repair] = ()) -> dict[str, Any]:
    return {
        "Healthy": all(finding.level is not Level.WRONG for finding in findings),
        "Findings": [
            {
                "Topic": finding.topic,
                "Level": finding.level.value,
                "Text": finding.text,
                "Remedy": finding.remedy,
                "Repairable": bool(finding.repair),
            }
            for finding in findings
        ],
        "Repairs": [{"Text": one.text, "Error": one.error} for one in repairs],
    }


ROUTES = (
    Route("GET", "/tsunagu/doctor", examine, is_cancellable=True),
    Route("POST", "/tsunagu/doctor", repair),
)
