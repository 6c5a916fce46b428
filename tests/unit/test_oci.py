"""wire.oci: Docker's defaults and options in config.json."""

from __future__ import annotations

from typing import Any

import pytest

from tsunagu.model.container import Config, Container, HostConfig
from tsunagu.model.errors import EngineError, InvalidParameter, NotSupported
from tsunagu.model.process import CAPABILITIES, Account, Device, HostFacts
from tsunagu.rules import mounts
from tsunagu.wire import oci
from tsunagu.wire.oci_mounts import tmpfs_mount

FACTS = HostFacts(
    capabilities=CAPABILITIES,
    devices=(Device(path="/dev/kvm", kind="c", major=10, minor=232),),
    seccomp_profile='{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}',
)


def container(config: Config | None = None, **host: Any) -> Container:
    return Container(
        id="c" * 64, name="web", created=1, image_id="sha256:1", path="sleep", args=("5",),
        config=config or Config(hostname="cccccccccccc"), host=HostConfig(**host),
        mounts=tuple(mounts.parse(text) for text in host.get("binds", ())),
    )  # fmt: skip


def build(
    config: Config | None = None, *, facts: HostFacts = FACTS, account: Account | None = None, **host: Any
) -> dict[str, Any]:
    return oci.container_config(
        container(config, **host),
        account=account or Account(groups=(0,)),
        rootfs="/merged",
        netns="/run/netns/c",
        cgroup_parent="tsunagu",
        facts=facts,
        etc_files={"/etc/hosts": "/d/hosts"},
    )


def mount(spec: dict[str, Any], path: str) -> dict[str, Any]:
    found = [m for m in spec["mounts"] if m["destination"] == path]
    assert len(found) == 1
    return found[0]


# ---- defaults


def test_defaults_are_dockers() -> None:
    spec = build()
    assert spec["root"] == {"path": "/merged", "readonly": False}
    assert spec["hostname"] == "cccccccccccc"
    assert spec["process"]["args"] == ["sleep", "5"]
    assert spec["process"]["cwd"] == "/"
    assert spec["process"]["noNewPrivileges"] is False
    linux = spec["linux"]
    assert linux["cgroupsPath"] == "/tsunagu/" + "c" * 64
    assert {"type": "network", "path": "/run/netns/c"} in linux["namespaces"]
    assert {n["type"] for n in linux["namespaces"]} == {"mount", "network", "uts", "pid", "ipc"}
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert linux["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    assert "/proc/kcore" in linux["maskedPaths"] and "/sys/firmware" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    assert {"names": ["read"], "action": "SCMP_ACT_ALLOW"} in linux["seccomp"]["syscalls"]
    assert "devices" not in linux
    assert "ro" in mount(spec, "/sys")["options"]
    assert "ro" in mount(spec, "/sys/fs/cgroup")["options"]
    assert "size=67108864" in mount(spec, "/dev/shm")["options"]
    assert mount(spec, "/etc/hosts")["source"] == "/d/hosts"


def test_the_capabilities_are_dockers_fourteen() -> None:
    sets = build()["process"]["capabilities"]
    assert sorted(sets["bounding"]) == sorted(
        "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP "
        "CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE".split()
    )
    assert sets["effective"] == sets["permitted"] == sets["bounding"]
    assert sets["inheritable"] == sets["ambient"] == []  # CVE-2022-24769


def test_another_user_starts_without_capabilities() -> None:
    process = build(account=Account(uid=1000, gid=100, groups=(100, 4)))["process"]
    assert process["user"] == {"uid": 1000, "gid": 100, "additionalGids": [100, 4], "umask": 0o022}
    assert process["capabilities"]["effective"] == process["capabilities"]["permitted"] == []
    assert len(process["capabilities"]["bounding"]) == 14


def test_mounts_come_after_their_parents() -> None:
    spec = build(binds=("/h:/data/sub", "/g:/data"), tmpfs={"/data/sub/tmp": ""})
    order = [m["destination"] for m in spec["mounts"]]
    for path in ("/dev/pts", "/data/sub", "/data/sub/tmp", "/sys/fs/cgroup"):
        parents = [p for p in order if path.startswith(p + "/")]
        assert all(order.index(p) < order.index(path) for p in parents)


# ---- environment


def test_environment_order_and_override() -> None:
    config = Config(hostname="h", tty=True, env=("A=1", "PATH=/mine", "B=2", "A=3", "TERM", "EMPTY="))
    assert build(config)["process"]["env"] == ["PATH=/mine", "HOSTNAME=h", "A=3", "B=2", "EMPTY="]


def test_exec_inherits_the_environment() -> None:
    process = oci.exec_process(
        container(Config(hostname="h", env=("A=1",), working_dir="/srv")),
        cmd=("ls", "-l"),
        account=Account(groups=(0,)),
        facts=FACTS,
        env=("A=2", "C=3"),
        tty=True,
        console_size=(24, 80),
    )
    assert process["env"][1:] == ["HOSTNAME=h", "TERM=xterm", "A=2", "C=3"]
    assert process["cwd"] == "/srv"
    assert process["consoleSize"] == {"height": 24, "width": 80}
    assert len(process["capabilities"]["bounding"]) == 14
    assert process["capabilities"]["inheritable"] == []


def test_a_privileged_exec_gets_every_capability() -> None:
    process = oci.exec_process(
        container(), cmd=("id",), account=Account(groups=(0,)), facts=FACTS, working_dir="/x", is_privileged=True
    )
    assert process["capabilities"]["effective"] == list(CAPABILITIES)
    assert process["cwd"] == "/x"


# ---- options


@pytest.mark.parametrize(
    ("add", "drop", "has", "lacks"),
    [
        (("NET_ADMIN",), (), "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
        (("cap_sys_time",), ("CAP_CHOWN",), "CAP_SYS_TIME", "CAP_CHOWN"),
        (("ALL",), ("MKNOD",), "CAP_SYS_ADMIN", "CAP_MKNOD"),
        (("KILL",), ("all",), "CAP_KILL", "CAP_CHOWN"),
        (("CHOWN",), ("CHOWN",), "CAP_CHOWN", "CAP_BPF"),
    ],
)
def test_cap_add_and_drop(add: tuple[str, ...], drop: tuple[str, ...], has: str, lacks: str) -> None:
    names = oci.capabilities(HostConfig(cap_add=add, cap_drop=drop), FACTS)
    assert has in names
    assert lacks not in names


def test_all_dropped_leaves_none() -> None:
    assert oci.capabilities(HostConfig(cap_drop=("ALL",)), FACTS) == []


def test_unknown_and_unavailable_capabilities_are_refused() -> None:
    with pytest.raises(InvalidParameter, match='invalid CapAdd: unknown capability: "CAP_FOO"'):
        build(cap_add=("foo",))
    with pytest.raises(InvalidParameter, match='invalid CapDrop: unknown capability: "CAP_BAR"'):
        build(cap_drop=("CAP_BAR",))
    with pytest.raises(InvalidParameter, match='not available in the current environment: "CAP_BPF"'):
        oci.capabilities(HostConfig(cap_add=("BPF",)), HostFacts(capabilities=("CAP_CHOWN",)))


def test_privileged() -> None:
    spec = build(privileged=True)
    linux = spec["linux"]
    assert spec["process"]["capabilities"]["effective"] == list(CAPABILITIES)
    assert spec["process"]["capabilities"]["inheritable"] == []
    assert not {"seccomp", "maskedPaths", "readonlyPaths"} & set(linux)
    assert linux["devices"][0]["path"] == "/dev/kvm"
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "rw" in mount(spec, "/sys")["options"] and "rw" in mount(spec, "/sys/fs/cgroup")["options"]


def test_security_options() -> None:
    assert build(security_opt=("no-new-privileges",))["process"]["noNewPrivileges"] is True
    assert build(security_opt=("no-new-privileges:true",))["process"]["noNewPrivileges"] is True
    assert build(security_opt=("no-new-privileges=false",))["process"]["noNewPrivileges"] is False
    assert "seccomp" not in build(security_opt=("seccomp=unconfined",))["linux"]
    own = build(security_opt=('seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',))["linux"]["seccomp"]
    assert own == {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    assert "seccomp" in build(privileged=True, security_opt=('seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',))["linux"]
    assert "maskedPaths" not in build(security_opt=("systempaths=unconfined",))["linux"]


@pytest.mark.parametrize(
    ("host", "kind", "words"),
    [
        ({"security_opt": ("frobnicate=1",)}, InvalidParameter, "frobnicate=1"),
        ({"security_opt": ("word",)}, InvalidParameter, 'invalid --security-opt 1: "word"'),
        ({"security_opt": ("seccomp={",)}, InvalidParameter, "Decoding seccomp profile failed"),
        ({"security_opt": ("label=type:x",)}, NotSupported, "SELinux"),
        ({"security_opt": ("apparmor=mine",)}, NotSupported, "AppArmor"),
        ({"tmpfs": {"/b": "huge"}}, InvalidParameter, "invalid tmpfs option"),
        ({"tmpfs": {"b": ""}}, InvalidParameter, "mount path must be absolute"),
        ({"pid_mode": "container:x"}, NotSupported, "PID"),
        ({"ipc_mode": "container:x"}, NotSupported, "IPC"),
        ({"uts_mode": "other"}, InvalidParameter, "invalid UTS mode: other"),
        ({"sysctls": {"kernel.panic": "1"}}, InvalidParameter, "sysctl 'kernel.panic' is not allowed"),
        ({"sysctls": {"net.core.somaxconn": "1"}, "network_mode": "host"}, InvalidParameter, "host network mode"),
        ({"sysctls": {"kernel.msgmax": "1"}, "ipc_mode": "host"}, InvalidParameter, "ipc is host"),
    ],
)
def test_check_refuses(host: dict[str, Any], kind: type[EngineError], words: str) -> None:
    with pytest.raises(kind) as caught:
        oci.check(HostConfig(**host), FACTS)
    assert words in caught.value.message


def test_check_accepts_what_is_fine() -> None:
    oci.check(
        HostConfig(
            tmpfs={"/t": "size=1m,exec,mode=1777"}, sysctls={"net.ipv4.x": "1"},
            security_opt=("label=disable", "apparmor=unconfined"), ipc_mode="host", pid_mode="host", uts_mode="host",
        ),
        FACTS,
    )  # fmt: skip


def test_namespaces_of_the_host() -> None:
    spec = build(pid_mode="host", ipc_mode="host", uts_mode="host")
    assert {n["type"] for n in spec["linux"]["namespaces"]} == {"mount", "network"}
    assert "hostname" not in spec
    assert mount(spec, "/dev/shm")["type"] == "bind"
    spec = oci.container_config(container(), account=Account(), rootfs="/m", netns=None, cgroup_parent="t", facts=FACTS)
    assert "network" not in {n["type"] for n in spec["linux"]["namespaces"]}
    assert spec["linux"]["sysctl"] == {}


def test_a_cgroup_namespace_on_v2_only() -> None:
    facts = HostFacts(capabilities=CAPABILITIES, is_cgroup_v2=True, seccomp_profile=FACTS.seccomp_profile)
    assert {"type": "cgroup"} in build(facts=facts)["linux"]["namespaces"]
    assert {"type": "cgroup"} not in build(facts=facts, cgroupns_mode="host")["linux"]["namespaces"]
    assert {"type": "cgroup"} not in build()["linux"]["namespaces"]


def test_binds() -> None:
    spec = build(binds=("/a:/b", "/c:/d/:ro", "/e:/etc/hosts", "/f:/s:rslave,bind"))
    assert mount(spec, "/b")["options"] == ["rbind", "rprivate"]
    assert mount(spec, "/d")["options"] == ["rbind", "rprivate", "rro"]
    assert mount(spec, "/etc/hosts")["source"] == "/e"
    assert mount(spec, "/s")["options"] == ["bind", "rslave"]
    assert spec["linux"]["rootfsPropagation"] == "rslave"
    old = HostFacts(capabilities=CAPABILITIES, kernel=(5, 10), seccomp_profile=FACTS.seccomp_profile)
    assert mount(build(facts=old, binds=("/c:/d:ro",)), "/d")["options"] == ["rbind", "rprivate", "ro"]


def test_tmpfs_options() -> None:
    assert tmpfs_mount("/t", "")["options"] == ["noexec", "nosuid", "nodev"]
    assert tmpfs_mount("/t", "exec,size=5m,mode=700")["options"] == ["nosuid", "nodev", "exec", "size=5m", "mode=700"]
    assert tmpfs_mount("/t", "size=1,size=2,ro,rw")["options"][-2:] == ["size=2", "rw"]


def test_read_only_root() -> None:
    spec = build(readonly_rootfs=True)
    assert spec["root"]["readonly"] is True
    assert "ro" in mount(spec, "/etc/hosts")["options"]


def test_domain_name_and_console() -> None:
    spec = build(Config(hostname="h", domainname="corp.example", tty=True), console_size=(24, 80))
    assert spec["linux"]["sysctl"]["kernel.domainname"] == "corp.example"
    assert spec["process"]["consoleSize"] == {"height": 24, "width": 80}
    assert spec["process"]["terminal"] is True


def test_requests_share_nothing() -> None:
    """CVE-2020-14370: one container's settings must not reach the next."""
    first = build(Config(env=("SECRET=1",)), binds=("/a:/b",))
    first["mounts"].clear()
    first["process"]["env"].append("X=1")
    second = build()
    assert all("SECRET" not in e and "X=" not in e for e in second["process"]["env"])
    assert mount(second, "/proc")


@pytest.mark.parametrize("options", ["size=xx", "size=-1", "size=", "mode=zz", "mode=", "uid=root", "size=1e3"])
def test_tmpfs_values_that_the_kernel_would_refuse_are_refused_before(options: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid tmpfs option"):
        tmpfs_mount("/t", options)


@pytest.mark.parametrize("options", ["size=64m", "size=50%", "size=65536,mode=1777", "uid=0,gid=5", "nr_inodes=1k"])
def test_tmpfs_values_that_the_kernel_takes(options: str) -> None:
    assert set(options.split(",")) <= set(tmpfs_mount("/t", options)["options"])
