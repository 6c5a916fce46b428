"""`commit` with both clients: an image of what a container changed, that runs, is saved, and can be committed again."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def clean(engine: EngineProcess, tsunagu: CommandLine) -> Iterator[None]:
    """No container and no image of a test is left to the next one."""
    before = {image["Id"] for image in engine.api.get("/images/json")}
    yield
    assert not engine.remove_everything()
    for image in engine.api.get("/images/json"):
        if image["Id"] not in before:
            tsunagu("rmi -f", image["Id"]).ok()


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_changes_become_an_image(cli: CommandLine, is_running: bool) -> None:
    cli("run -d --name box alpine sleep 1000").ok()
    script = "echo new > /tmp/new; ln /tmp/new /tmp/same; rm /etc/group; rm -r /var; mkdir /var; echo again > /var/f"
    cli("exec box sh -c", f"{script}; chmod 700 /home; echo more >> /etc/passwd; mkfifo /tmp/fifo").ok()
    if not is_running:
        cli("stop -t 0 box").ok()
    changed = cli("diff box").ok()
    identity = cli("commit -a 'A <a@b>' -m 'a message' box made/one:v1").ok()
    assert identity.startswith("sha256:") and cli("images -q --no-trunc made/one").ok() == identity
    if is_running:
        assert cli("inspect -f {{.State.Status}} box").ok() == "running"
    cli("rm -f box").ok()
    look = "cat /tmp/new /tmp/same /var/f; ls /var /etc/group /home; stat -c %a /home; tail -1 /etc/passwd"
    result = cli("run --rm made/one:v1 sh -c", look)
    assert result.out.split()[:3] == ["new", "new", "again"]
    assert "/etc/group" in result.err and "No such file" in result.err
    assert {"f", "700", "more"} <= set(result.out.split()) and "log" not in result.out.split()
    image = json.loads(cli("image inspect made/one:v1").ok())[0]
    base = json.loads(cli("image inspect alpine").ok())[0]
    assert image["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert (image["Author"], image["Comment"]) == ("A <a@b>", "a message")
    assert image["Config"]["Cmd"] == ["sleep", "1000"]
    history = cli("history --no-trunc --format", "{{.CreatedBy}}|{{.Comment}}", "made/one:v1").ok().splitlines()
    assert history[0] == "sleep 1000|a message"
    # exactly what diff told is in the layer: a container of the image that changes nothing has no difference
    cli("create --name again made/one:v1").ok()
    assert cli("diff again").ok() == ""
    assert "D /etc/group" in changed and "D /var/log" in changed


def test_the_layer_of_it(cli: CommandLine, tmp_path: Path) -> None:
    """Places that a start makes for mounts are not in it, and what is gone is marked as images mark it."""
    cli("run --name box alpine sh -c", "rm /etc/group; rm -r /var; mkdir /var; echo x > /root/f").ok()
    cli("commit box made/layer").ok()
    cli(f"save -o {tmp_path}/saved.tar made/layer").ok()
    with tarfile.open(tmp_path / "saved.tar") as saved:
        manifest = json.load(saved.extractfile("manifest.json"))  # type: ignore[arg-type]
        layer = saved.extractfile(manifest[0]["Layers"][-1]).read()  # type: ignore[union-attr]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        names = sorted(m.name for m in tar.getmembers())
    assert names == ["etc", "etc/.wh.group", "root", "root/f", "var", "var/.wh..wh..opq"]
    cli("rm box").ok()
    cli("rmi -f made/layer")
    cli(f"load -i {tmp_path}/saved.tar").ok()
    assert cli("run --rm made/layer cat /root/f").ok() == "x"


def test_nothing_changed_is_no_layer(cli: CommandLine) -> None:
    cli("create --name box alpine").ok()
    cli("commit -c 'ENV A=b' box made/same").ok()
    layers = [json.loads(cli("image inspect", name).ok())[0]["RootFS"]["Layers"] for name in ("alpine", "made/same")]
    assert layers[0] == layers[1]
    assert cli("run --rm made/same sh -c", "echo $A").ok() == "b"


def test_instructions(cli: CommandLine) -> None:
    cli("run --name box -e KEPT=1 -e OVER=old --label l=1 -w /tmp alpine true").ok()
    cli(
        "commit",
        *("-c", 'CMD ["echo", "by default"]', "-c", "ENV OVER=new", "-c", "EXPOSE 80", "-c", "LABEL m=2"),
        *("-c", "USER nobody", "-c", "WORKDIR /home", "box", "made/changed"),
    ).ok()
    config = json.loads(cli("image inspect made/changed").ok())[0]["Config"]
    assert config["Cmd"] == ["echo", "by default"]
    assert {"OVER=new", "KEPT=1"} <= set(config["Env"]) and "OVER=old" not in config["Env"]
    assert (config["User"], config["WorkingDir"]) == ("nobody", "/home")
    assert config["Labels"] == {"l": "1", "m": "2"} and config["ExposedPorts"] == {"80/tcp": {}}
    assert cli("run --rm made/changed").ok() == "by default"
    result = cli("commit -c", "RUN true", "box")
    cli.refuses(result, 1, "Error response from daemon: RUN is not a valid change command")


def test_refusals(cli: CommandLine) -> None:
    cli("create --name box alpine").ok()
    cli.refuses(cli("commit nosuch"), 1, "Error response from daemon: No such container: nosuch")
    assert cli("commit box 'Bad Name'").code == 1
    assert cli("commit box").ok().startswith("sha256:")  # without a name


def test_committed_again_and_again(cli: CommandLine) -> None:
    name = "alpine"
    for turn in range(4):
        cli(f"run --name box{turn} {name} sh -c", f"echo {turn} > /tmp/{turn}; rm -f /tmp/{turn - 2}").ok()
        name = f"made/turn:{turn}"
        cli(f"commit box{turn} {name}").ok()
    assert cli(f"run --rm {name} ls /tmp").ok().split() == ["2", "3"]


def test_paused_for_the_time_of_it(docker: CommandLine, engine: EngineProcess) -> None:
    docker("run -d --name box alpine sleep 1000").ok()
    since = engine.api.get("/info")["SystemTime"]
    docker("commit box made/p").ok()
    docker("commit -p=false box made/q").ok()
    until = engine.api.get("/info")["SystemTime"]
    form = "{{.Type}} {{.Action}}"
    told = docker("events", "--since", since, "--until", until, "--filter", "container=box", "--format", form).ok()
    assert told.splitlines() == ["container pause", "container unpause", "container commit", "container commit"]
    docker("pause box").ok()
    docker("commit box made/r").ok()
    assert docker("inspect -f {{.State.Status}} box").ok() == "paused"


def test_two_at_once(cli: CommandLine) -> None:
    """Each waits for the other, and does not stumble over a container that the other has paused."""
    cli("run -d --name box alpine sleep 1000").ok()
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda n: cli("commit box", f"made/at-once:{n}"), range(4)))
    for result in results:
        result.ok()
    assert cli("inspect -f {{.State.Status}} box").ok() == "running"


def test_an_environment_of_other_things_than_texts(engine: EngineProcess, tsunagu: CommandLine) -> None:
    tsunagu("create --name box alpine true").ok()
    status, body = engine.api.request("POST", "/commit?container=box", json.dumps({"Env": [1]}).encode())
    assert status == 400
    assert json.loads(body)["message"] == "invalid JSON: Env: expected an array of strings"
