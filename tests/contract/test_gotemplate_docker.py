"""wire.gotemplate against the docker client itself: the recorded corpus holds, and so do templates made at random."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tsunagu.wire.gotemplate import Template, TemplateError

from .docker_client import CORPUS, OBJECTS, CannedApi, docker, inspect

DATA: dict[str, Any] = json.loads(CORPUS.read_text())
SEED = int(os.environ.get("TSUNAGU_SEED", "1"))
# What Docker prints differently every time (addresses), or we do differently on purpose (docs/formatting.md).
DELIBERATE = ("0xc0", "expected []string", "container.RestartPolicyMode")

ATOMS = """.Name .State.Pid .State .State.Running .Config.Labels .Config.Labels.a .Config.Labels.zz .Config.Cmd
    .Config.Env .State.Health .Unknown .Flt .NetworkSettings.Networks.n1
    .NetworkSettings.Networks.n1.Aliases .NetworkSettings.Ports
    .HostConfig.RestartPolicy.Name .ID .Mounts "x" "a,b" `` 1 0 2.5 -3 true false nil 'c' "%d" "%v|%s" "%-5v" "%q" "%x"
    .HostConfig.PidsLimit .Created .Nope $v""".split()
FUNCTIONS = """json len not upper lower title print index slice eq ne lt le gt ge and or join split pad truncate html js
    urlquery println""".split()
FUNCTIONS += ['printf "%v"', 'printf "%d %s"', 'printf "%+v|%#v"', 'printf "%5v|%-5v|%05d"']


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CannedApi]:
    if not docker():
        pytest.skip("no docker client on this machine: templates are compared with its recorded answers only")
    made = CannedApi(tmp_path_factory.mktemp("canned"), DATA["answers"])
    yield made
    made.close()


class Maker:
    """Templates at random, most of them wrong in some way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def term(self, depth: int) -> str:
        turn = self.random.random()
        if depth <= 0 or turn < 0.65:
            return self.random.choice(ATOMS)
        if turn < 0.9:
            return f"({self.pipeline(depth - 1)}){self.random.choice(['', '', '', '.x', '.Name', '.IPAddress'])}"
        return self.random.choice(FUNCTIONS)

    def command(self, depth: int) -> str:
        if self.random.random() < 0.35:
            return self.random.choice(ATOMS)
        count = self.random.choice([0, 1, 1, 2, 2, 3])
        return " ".join([self.random.choice(FUNCTIONS), *(self.term(depth - 1) for _ in range(count))])

    def pipeline(self, depth: int) -> str:
        made = self.command(depth)
        while self.random.random() < 0.25:
            made += f" | {self.random.choice(FUNCTIONS)}{self.random.choice(['', ' 1', ' 0 1', ' .Name'])}"
        return made

    def template(self, depth: int = 2) -> str:
        turn = self.random.random()
        if turn < 0.5 or depth <= 0:
            trim = self.random.choice(["", "", "- "])
            return f"{self.random.choice(['', 'a ', ' '])}{{{{{trim}{self.pipeline(2)}}}}}"
        inner = self.template(depth - 1) + self.random.choice(["", "{{else}}e"])
        if turn < 0.65:
            return f"{{{{if {self.pipeline(1)}}}}}{inner}{{{{end}}}}"
        if turn < 0.8:
            return f"{{{{with {self.random.choice(['', '$v := '])}{self.pipeline(1)}}}}}{inner}{{{{end}}}}"
        variables = self.random.choice(["", "$v := ", "$k, $v := "])
        return f"{{{{range {variables}{self.pipeline(1)}}}}}{inner}{{{{end}}}}"


def ours(kind: str, text: str) -> str:
    try:
        return Template(text).inspect(DATA["answers"][OBJECTS[kind][0]], kind)
    except TemplateError as error:
        return f"ERROR template parsing error: {error}".strip()


def test_the_recorded_answers_are_still_dockers(api: CannedApi) -> None:
    sample = random.Random(SEED).sample(DATA["cases"], 60)
    changed = [(text, inspect(api.url, kind, text)) for kind, text, printed in sample]
    assert changed == [(text, printed) for _, text, printed in sample]


def test_random_templates_print_what_docker_prints(api: CannedApi) -> None:
    maker = Maker(SEED)
    different = []
    for text in (maker.template() for _ in range(150)):
        theirs = inspect(api.url, "container", text)
        if theirs != ours("container", text) and not any(word in theirs for word in DELIBERATE):
            different.append((text, theirs, ours("container", text)))
    assert different == []
