"""`import --change`: the instructions Docker allows, as it applies them, and its sentences for the others."""

from __future__ import annotations

from typing import Any

import pytest

from tsunagu.model.errors import InvalidParameter
from tsunagu.services.images_changes import new_config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["CMD echo hi"], {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        (['cmd ["echo", "hi there"]'], {"Cmd": ["echo", "hi there"]}),
        (["ENTRYPOINT [broken"], {"Entrypoint": ["/bin/sh", "-c", "[broken"]}),
        (["ENV A=1 B='two words'", "ENV A=3", "ENV C all of this"], {"Env": ["B=two words", "A=3", "C=all of this"]}),
        (
            ["EXPOSE 80 53/udp 8000-8002"],
            {"ExposedPorts": {p: {} for p in ("80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")}},
        ),
        (['LABEL a=b "c d"="e f"'], {"Labels": {"a": "b", "c d": "e f"}}),
        (["STOPSIGNAL SIGINT", "USER nobody:nogroup"], {"StopSignal": "SIGINT", "User": "nobody:nogroup"}),
        (["VOLUME /data /log", 'VOLUME ["/x y"]'], {"Volumes": {"/data": {}, "/log": {}, "/x y": {}}}),
        (["WORKDIR /srv", "WORKDIR www"], {"WorkingDir": "/srv/www"}),
        (["ONBUILD RUN make"], {"OnBuild": ["RUN make"]}),
        (["CMD a \\\n b", ""], {"Cmd": ["/bin/sh", "-c", "a   b"]}),
    ],
)
def test_what_is_applied(changes: list[str], expected: dict[str, Any]) -> None:
    assert new_config("", changes)["config"] == expected


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("RUN make", "RUN is not a valid change command"),
        ("FROM x", "FROM is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "can't find = in 'B'"),
        ("EXPOSE http", "invalid containerPort: http"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("USER a b", "USER requires exactly one argument"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("LABEL a='b", "failed to process"),
    ],
)
def test_what_is_refused(change: str, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        new_config("", [change])
    assert sentence in caught.value.message


def test_comment() -> None:
    assert new_config("", [])["comment"] == "Imported from -"
    config = new_config("mine", [])
    assert config["comment"] == "mine" and config["history"][0]["comment"] == "mine" and config["os"] == "linux"
