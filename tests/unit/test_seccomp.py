"""wire.seccomp: the conditions of the profile are decided by capabilities, architecture and kernel."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tsunagu.model.errors import InvalidParameter
from tsunagu.wire.seccomp import filter_profile

PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "defaultErrno": "ENOSYS",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": None, "includes": {}, "excludes": {}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {
            "names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EPERM",
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["old"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
        {
            "names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
        },
        {"names": [], "action": "SCMP_ACT_ALLOW"},
    ],
}  # fmt: skip


def run(
    *capabilities: str, architecture: str = "x86_64", kernel: tuple[int, int] = (6, 1), profile: Any = PROFILE
) -> Any:
    return filter_profile(
        json.dumps(profile), capabilities=frozenset(capabilities), architecture=architecture, kernel=kernel
    )


def actions(result: Any, name: str) -> list[str]:
    return [s["action"] for s in result["syscalls"] if name in s["names"]]


def test_capabilities_decide() -> None:
    assert actions(run(), "mount") == ["SCMP_ACT_ERRNO"]
    assert actions(run("CAP_SYS_ADMIN"), "mount") == ["SCMP_ACT_ALLOW"]
    assert next(s for s in run()["syscalls"] if s["names"] == ["mount"])["errnoRet"] == 1


def test_architecture_decides() -> None:
    assert actions(run(), "arch_prctl") == ["SCMP_ACT_ALLOW"]
    assert actions(run(architecture="aarch64"), "arch_prctl") == []
    assert run()["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert run(architecture="aarch64")["architectures"] == ["SCMP_ARCH_AARCH64"]


def test_a_sub_architecture_can_be_left_out() -> None:
    result = filter_profile(
        json.dumps(PROFILE), capabilities=frozenset(), architecture="x86_64", kernel=(6, 1),
        without=frozenset({"SCMP_ARCH_X86"}),
    )  # fmt: skip
    assert result["architectures"] == ["SCMP_ARCH_X86_64"]


def test_kernel_decides() -> None:
    assert actions(run(), "ptrace") == ["SCMP_ACT_ALLOW"]
    assert actions(run(kernel=(4, 7)), "ptrace") == []
    assert actions(run(), "old") == []
    assert actions(run(kernel=(4, 7)), "old") == ["SCMP_ACT_ALLOW"]


def test_the_result_is_oci() -> None:
    result = run()
    assert result["defaultErrnoRet"] == 38
    assert set(result) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    assert all(set(s) <= {"names", "action", "errnoRet", "args"} and s["names"] for s in result["syscalls"])
    assert {"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"} in [
        a for s in result["syscalls"] for a in s.get("args", ())
    ]


def test_it_is_computed_once_per_capability_set() -> None:
    assert run("CAP_KILL") is run("CAP_KILL")
    assert run("CAP_KILL") is not run("CAP_CHOWN")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"defaultAction": 1}', "{"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Decoding seccomp profile failed"):
        filter_profile(text, capabilities=frozenset(), architecture="x86_64", kernel=(6, 1))


@pytest.mark.parametrize("name", ["unshare", "setns", "mount", "clone3", "keyctl", "pivot_root", "syslog"])
def test_default_refuses_what_dockers_refuses(name: str) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read", "clone", name], "action": "SCMP_ACT_ALLOW"}],
    }

    def rules(*capabilities: str, is_default: bool = True) -> Any:
        return filter_profile(
            json.dumps(profile),
            capabilities=frozenset(capabilities),
            architecture="x86_64",
            kernel=(6, 1),
            is_default=is_default,
        )

    assert actions(rules(), name) == ["SCMP_ACT_ERRNO"]
    assert actions(rules(), "read") == ["SCMP_ACT_ALLOW"]
    clone = [rule for rule in rules()["syscalls"] if "clone" in rule["names"]]
    assert [(rule["action"], rule["args"][0]["op"]) for rule in clone] == [("SCMP_ACT_ALLOW", "SCMP_CMP_MASKED_EQ")]
    # a profile that the user chose is taken as it is
    assert actions(rules(is_default=False), name) == ["SCMP_ACT_ALLOW"]
    granted = actions(rules("CAP_SYS_ADMIN", "CAP_SYSLOG"), name)
    assert granted == (["SCMP_ACT_ERRNO"] if name in ("keyctl", "pivot_root") else ["SCMP_ACT_ALLOW"])
