"""`doctor [--fix]`: is the host as the engine wants it, and put it right.

May import: `client`, `cli`. Must never import the engine.
"""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.output import out, paint, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

HEALTHY, NOT_HEALTHY = 0, 1
_MARKS = {"ok": ("✓", 32), "wrong": ("✗", 31), "warning": ("!", 33)}

_FLAGS: tuple[Flag, ...] = (
    ("fix", "", "bool", False, "Put right what can be"),
    ("json", "", "bool", False, "Print the answer as JSON"),
)
_MORE = """Looks at forwarding, kernel settings, the firewall table and those of others, the runtime, bridges,
interfaces, namespaces, name servers, published ports, addresses, space and leftovers.

Exit codes: 0 nothing is wrong, 1 something is."""


def _doctor(context: Context, options: Options, _arguments: list[str]) -> int:
    client = context.client()
    answer = client.post("/tsunagu/doctor") if options["fix"] else client.get("/tsunagu/doctor")
    if options["json"]:
        from tsunagu.jsontext import dumps

        say(dumps(answer))
    else:
        _print(answer, has_fixed=options["fix"])
    return HEALTHY if answer["Healthy"] else NOT_HEALTHY


def _print(answer: dict[str, Any], *, has_fixed: bool) -> None:
    lines = []
    for repair in answer["Repairs"]:
        done = f"not repaired ({repair['Error']})" if repair["Error"] else "repaired"
        lines.append(f"{done}: {repair['Text']}")
    if lines:
        lines.append("")
    findings = answer["Findings"]
    width = max((len(finding["Topic"]) for finding in findings), default=0)
    for finding in findings:
        mark, colour = _MARKS[finding["Level"]]
        lines.append(f"{paint(mark, colour)} {finding['Topic']:{width}}  {finding['Text']}")
        if finding["Remedy"]:
            lines.append(f"  {'':{width}}  try: {finding['Remedy']}")
    lines.append("")
    wrong = sum(finding["Level"] == "wrong" for finding in findings)
    repairable = sum(finding["Repairable"] for finding in findings)
    if not wrong:
        lines.append("Nothing is wrong.")
    elif repairable and not has_fixed:
        lines.append(f"{wrong} wrong; {repairable} of them can be repaired: tsunagu doctor --fix")
    else:
        lines.append(f"{wrong} wrong.")
    out("\n".join(lines) + "\n")


DOCTOR = Command(
    "[OPTIONS]",
    "Check the host and the engine, and tell what is wrong",
    _doctor,
    flags=_FLAGS,
    most=0,
    more=_MORE,
)
