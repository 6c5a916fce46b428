"""The flag parser: pflag's rules and sentences (compared by hand with Docker's client 28.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.cli.create_flags import RUN_FLAGS
from tsunagu.cli.flags import HelpRequested, Options, UsageError, parse


def run_flags(*words: str) -> tuple[Options, list[str]]:
    return parse(RUN_FLAGS, words, is_interspersed=False)


def complaint(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        run_flags(*words)
    return str(caught.value)


def test_a_cluster_of_shorthands() -> None:
    options, rest = run_flags("-itd", "alpine", "-x", "--y")
    assert options["interactive"] and options["tty"] and options["detach"]
    assert rest == ["alpine", "-x", "--y"]


def test_a_cluster_may_end_in_a_flag_with_a_value() -> None:
    assert run_flags("-itp80:80", "a")[0]["publish"] == ["80:80"]
    assert run_flags("-itp", "80:80", "a")[0]["publish"] == ["80:80"]
    assert run_flags("-itp=80:80", "a")[0]["publish"] == ["80:80"]


def test_bools_take_no_value_unless_with_an_equals_sign() -> None:
    options, rest = run_flags("--rm", "false", "x")
    assert options["rm"] is True and rest == ["false", "x"]
    assert run_flags("--rm=false", "a")[0]["rm"] is False
    assert run_flags("--sig-proxy=0", "a")[0]["sig-proxy"] is False
    assert run_flags("-d=f", "a")[0]["detach"] is False


def test_values_with_and_without_equals_sign() -> None:
    assert run_flags("--name=x=y", "a")[0]["name"] == "x=y"
    assert run_flags("--name", "--rm", "a")[0]["name"] == "--rm"
    assert run_flags("--name", "", "a")[0]["name"] == ""


def test_the_last_value_wins_and_lists_grow() -> None:
    options, _ = run_flags("--name", "a", "--name", "b", "-e", "A=1", "-e", "B=2", "x")
    assert options["name"] == "b" and options["env"] == ["A=1", "B=2"]
    assert run_flags("x")[0]["env"] == ()


def test_given_is_more_than_different_from_the_default() -> None:
    options, _ = run_flags("--stop-timeout", "0", "x")
    assert "stop-timeout" in options and "name" not in options


def test_double_dash_ends_the_flags() -> None:
    assert run_flags("--rm", "--", "-x")[1] == ["-x"]
    assert parse(RUN_FLAGS, ["a", "--", "--rm"])[1] == ["a", "--rm"]


def test_flags_after_arguments_where_they_may() -> None:
    options, rest = parse(RUN_FLAGS, ["a", "--rm", "b"])
    assert options["rm"] and rest == ["a", "b"]


def test_a_single_dash_is_an_argument() -> None:
    assert run_flags("-", "x")[1] == ["-", "x"]


def test_other_spellings() -> None:
    options, _ = run_flags("--net", "x", "--net-alias", "y", "--dns-opt", "z", "a")
    assert options["network"][0]["name"] == "x"
    assert options["network-alias"] == ["y"] and options["dns-option"] == ["z"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["--foo=1"], "unknown flag: --foo"),
        (["-zt"], "unknown shorthand flag: 'z' in -zt"),
        (["-tzi"], "unknown shorthand flag: 'z' in -zi"),
        (["--name"], "flag needs an argument: --name"),
        (["-v"], "flag needs an argument: 'v' in -v"),
        (["-itv"], "flag needs an argument: 'v' in -v"),
        (["--=x"], "bad flag syntax: --=x"),
        (["---x"], "bad flag syntax: ---x"),
        (
            ["--rm=maybe"],
            'invalid argument "maybe" for "--rm" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (["-m", "xx"], 'invalid argument "xx" for "-m, --memory" flag: invalid size: \'xx\''),
        (
            ["--stop-timeout", "x"],
            'invalid argument "x" for "--stop-timeout" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            ["--blkio-weight", "99999"],
            'invalid argument "99999" for "--blkio-weight" flag: '
            'strconv.ParseUint: parsing "99999": value out of range',
        ),
        (["--cpus", "x"], 'invalid argument "x" for "--cpus" flag: failed to parse x as a rational number'),
        (
            ["--health-interval", "5"],
            'invalid argument "5" for "--health-interval" flag: time: missing unit in duration "5"',
        ),
        (["-e", "=x"], 'invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x'),
        (["-a", "foo"], 'invalid argument "foo" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR'),
    ],
)
def test_sentences(words: list[str], sentence: str) -> None:
    assert complaint(*words) == sentence


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("0x10", 16), ("010", 8), ("0o10", 8), ("1_000", 1000), ("-5", -5), ("+5", 5)]
)
def test_numbers_as_go_reads_them(text: str, value: int) -> None:
    assert run_flags("--oom-score-adj", text, "x")[0]["oom-score-adj"] == value


def test_help() -> None:
    for words in (["--help"], ["--rm", "--help", "x"], ["--help=true"]):
        with pytest.raises(HelpRequested):
            run_flags(*words)
    with pytest.raises(HelpRequested):
        parse((), ["-h"])
    assert run_flags("-h", "name", "x")[0]["hostname"] == "name"


@given(st.lists(st.text(max_size=12) | st.sampled_from([f"--{flag[0]}" for flag in RUN_FLAGS]), max_size=8))
def test_any_command_line_is_parsed_or_refused(words: list[str]) -> None:
    try:
        _, rest = run_flags(*words)
    except (UsageError, HelpRequested):
        return
    assert rest == words[len(words) - len(rest) :]
