"""Shell completion: the scripts for bash, zsh and fish, and the words that they offer.

The scripts are short and know nothing: at each Tab they ask `tsunagu completion candidates`, so that commands, flags
and names are always those of the installed program and of the running engine. May import: the command tables, `client`.
Must never start an engine, print an error or fail: a Tab that finds nothing offers nothing.
"""

from __future__ import annotations

from tsunagu.cli import commands
from tsunagu.cli.flags import HELP
from tsunagu.cli.main import GLOBAL_FLAGS, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tsunagu.cli.command import Command
    from tsunagu.cli.flags import Flag

    # (kind of name, host given on the command line or "") -> (name, description)
    Lookup = Callable[[str, str], Sequence[tuple[str, str]]]

# What the arguments of a command name, one after the other; the last holds for all that follow. "" is nothing known.
_ARGUMENTS: dict[commands.Entry, tuple[str, ...]] = {
    ("archives", "IMPORT"): ("files", ""),
    ("archives", "PULL"): ("images", ""),
    ("archives", "SAVE"): ("images",),
    ("attach", "ATTACH"): ("running", ""),
    ("attach", "START"): ("stopped",),
    ("changes", "COMMIT"): ("containers", "images"),
    ("changes", "DIFF"): ("containers",),
    ("changes", "EXPORT"): ("containers",),
    ("containers", "KILL"): ("running",),
    ("containers", "PORT"): ("running", ""),
    ("containers", "RENAME"): ("containers", ""),
    ("containers", "RESTART"): ("containers",),
    ("containers", "RM"): ("containers",),
    ("containers", "STOP"): ("running",),
    ("containers", "TOP"): ("running", ""),
    ("containers", "WAIT"): ("containers",),
    ("cp", "CP"): ("containers", "containers"),
    ("dns", "LOG"): ("running", ""),
    ("dns", "LS"): ("running", ""),
    ("dns", "QUERY"): ("running", "containers", ""),
    ("exec", "EXEC"): ("running", "files"),
    ("images", "HISTORY"): ("images", ""),
    ("images", "IMAGES"): ("images", ""),
    ("images", "RMI"): ("images",),
    ("images", "TAG"): ("images",),
    ("inspect", "CONTAINER_INSPECT"): ("containers",),
    ("inspect", "IMAGE_INSPECT"): ("images",),
    ("inspect", "INSPECT"): ("objects",),
    ("inspect", "NETWORK_INSPECT"): ("networks",),
    ("map", "MAP"): ("members",),
    ("logs", "LOGS"): ("containers", ""),
    ("networks", "CONNECT"): ("networks", "containers", ""),
    ("networks", "DISCONNECT"): ("networks", "containers", ""),
    ("networks", "RM"): ("networks",),
    ("pausing", "PAUSE"): ("running",),
    ("pausing", "UNPAUSE"): ("paused",),
    ("run", "CREATE"): ("images", "files"),
    ("run", "RUN"): ("images", "files"),
    ("update", "UPDATE"): ("containers",),
    ("stats", "STATS"): ("running",),
    ("why", "WHY"): ("running", "containers", ""),
}
# What the value of a flag names, or the words that it may be; the first match of "path --flag", then "--flag" counts.
_VALUES: dict[str, str | tuple[str, ...]] = {
    "inspect --type": ("container", "image", "network"),
    "network create --driver": ("bridge",),
    "map --format": ("text", "mermaid", "dot", "svg", "json"),
    "--attach": ("stdin", "stdout", "stderr"),
    "--cgroupns": ("host", "private"),
    "--cidfile": "files",
    "--config": "directories",
    "--env-file": "files",
    "--format": ("json", "table"),
    "--host": "files",
    "--input": "files",
    "--ipc": ("host", "none", "private", "shareable"),
    "--label-file": "files",
    "--link": "containers",
    "--log-level": ("debug", "info", "warn", "error", "fatal"),
    "--network": "networks",
    "--net": "networks",
    "--output": "files",
    "--pid": ("host",),
    "--pull": ("always", "missing", "never"),
    "--restart": ("no", "always", "on-failure", "unless-stopped"),
    "--root": "directories",
    "--run-dir": "directories",
    "--signal": "signals",
    "--stop-signal": "signals",
    "--userns": ("host",),
    "--uts": ("host",),
    "--volume": "files",
    "--volumes-from": "containers",
}
_SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT", "SIGSTOP", "SIGWINCH")
_PATHS = ("files", "directories")


class Answer:
    """What to offer: `words` with descriptions; or the shell's own "files" or "directories" (`paths`)."""

    __slots__ = ("paths", "words")

    def __init__(self, words: Sequence[tuple[str, str]] = (), paths: str = "") -> None:
        self.words = words
        self.paths = paths

    def text(self, *, is_described: bool) -> str:
        """The answer as the scripts read it: a line with `paths` or "words", then one line for each candidate."""
        lines = [self.paths or "words"]
        for word, about in self.words:
            lines.append(f"{word}\t{' '.join(about.split())}" if is_described and about else word)
        return "\n".join(lines) + "\n"


class _Line:
    """A command line read from the left as far as it goes, with the rules of `flags.parse`."""

    def __init__(self) -> None:
        self.flags: Sequence[Flag] = GLOBAL_FLAGS
        self.path = ""
        self.entry: commands.Entry | None = None
        self.command: Command | None = None
        self.is_group = self.is_unknown = self.is_help = False
        self.only_arguments = False
        self.arguments: list[str] = []
        self.host = ""
        self.pending: Flag | None = None

    def read(self, word: str) -> None:
        """One complete word."""
        if self.pending is not None:
            if self.pending[0] == "host":
                self.host = word
            self.pending = None
        elif self.is_foreign():
            self.arguments.append(word)
        elif word == "--" and not self.only_arguments:
            self.only_arguments = True
        elif len(word) > 1 and word[0] == "-" and not self.only_arguments:
            self._flag(word)
        elif self.command is None:
            self._word(word)
        else:
            self.arguments.append(word)

    def is_foreign(self) -> bool:
        """Whether what follows belongs to the program in the container."""
        return self.command is not None and not self.command.is_interspersed and bool(self.arguments)

    def _flag(self, word: str) -> None:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            flag = self.flag(name)
            if flag is not None and flag[2] != "bool":
                if not equals:
                    self.pending = flag
                elif flag[0] == "host":
                    self.host = value
            return
        for place in range(1, len(word)):
            flag = next((one for one in self.flags if one[1] == word[place]), None)
            if flag is None:
                return
            if flag[2] != "bool":
                if place == len(word) - 1:
                    self.pending = flag
                elif flag[0] == "host":
                    self.host = word[place + 1 :].lstrip("=")
                return

    def flag(self, name: str) -> Flag | None:
        """The flag of that long name, other spellings followed."""
        found = next((one for one in self.flags if one[0] == name), None)
        return self.flag(found[2][1:]) if found is not None and found[2].startswith("=") else found

    def _word(self, word: str) -> None:
        if not self.path and word == "help" and not self.is_help:
            self.is_help = True
            return
        if not self.path and word in commands.GROUPS:
            self.path, self.is_group, self.flags = word, True, ()
            return
        self.entry = commands.GROUPS[self.path][1].get(word) if self.is_group else commands.TOP.get(word)
        self.path = f"{self.path} {word}".strip()
        self.is_group = False
        if self.entry is None:
            self.is_unknown = True
            self.flags = ()
            return
        self.command = load(self.entry)
        self.flags = self.command.flags


def candidates(words: Sequence[str], lookup: Lookup) -> Answer:
    """What fits in place of the last word. `words` follow the program's name; the last one may be empty."""
    line = _Line()
    for word in words[:-1]:
        line.read(word)
        if line.is_unknown:
            return Answer()
    current = words[-1] if words else ""
    if line.pending is not None:
        return _value(line, line.pending, current, "", lookup)
    if not line.is_foreign() and not line.only_arguments and current.startswith("-"):
        name, equals, value = current[2:].partition("=")
        if current.startswith("--") and equals:
            flag = line.flag(name)
            return _value(line, flag, value, f"--{name}=", lookup) if flag is not None else Answer()
        return Answer(_fitting(_flag_words(line), current))
    if line.command is None:
        return Answer(_fitting(_command_words(line), current))
    kinds = _ARGUMENTS.get(line.entry or ("", ""), ("",))
    if line.is_help or (line.command.most is not None and len(line.arguments) >= line.command.most):
        return Answer()
    kind = kinds[min(len(line.arguments), len(kinds) - 1)]
    if kind in _PATHS:
        return Answer(paths=kind)
    known = lookup(kind, line.host) if kind else ()
    return Answer(_fitting([name for name in known if name[0] not in line.arguments], current))


def _fitting(words: Sequence[tuple[str, str]], start: str) -> list[tuple[str, str]]:
    return [word for word in words if word[0].startswith(start)]


def _value(line: _Line, flag: Flag, current: str, prefix: str, lookup: Lookup) -> Answer:
    if flag[2] == "bool":
        values: str | tuple[str, ...] = ("true", "false")
    else:
        name = f"--{flag[0]}"
        values = _VALUES.get(f"{line.path} {name}", _VALUES.get(name, ()))
    if values in _PATHS:
        return Answer(paths=str(values))
    if values == "signals":
        values = _SIGNALS
    known = [(value, "") for value in values] if isinstance(values, tuple) else lookup(values, line.host)
    return Answer([(prefix + word, about) for word, about in _fitting(known, current)])


def _flag_words(line: _Line) -> list[tuple[str, str]]:
    flags = [flag for flag in (*line.flags, HELP) if flag[4] is not None or flag is HELP]
    words = [(f"--{name}", (about or "Print usage").partition("\n")[0]) for name, _, _, _, about in flags]
    words += [(f"-{short}", (about or "").partition("\n")[0]) for _, short, _, _, about in flags if short]
    return sorted(words)


def _command_words(line: _Line) -> list[tuple[str, str]]:
    if line.is_group:
        table, prefix = commands.GROUPS[line.path][1], f"{line.path} "
        return [
            (name, load(entry).about)
            for name, entry in sorted(table.items())
            if name not in commands.HIDDEN and prefix + name not in commands.HIDDEN_PATHS
        ]
    words = [(name, load(entry).about) for name, entry in commands.TOP.items()]
    words += [(name, about) for name, (about, _) in commands.GROUPS.items()]
    return sorted(words) if line.is_help else sorted([*words, ("help", "Help about a command")])


def names(kind: str, host: str) -> list[tuple[str, str]]:
    """Names that the engine at `host` knows. `kind`: containers, running, paused, stopped, images, networks,
    members (of the map) or objects.

    Raises ClientError when no engine answers; starts none.
    """
    from tsunagu.client import Client

    client = Client(host)
    found: list[tuple[str, str]] = []
    if kind in ("containers", "running", "paused", "stopped", "members", "objects"):
        for item in client.get("/containers/json", {} if kind in ("running", "paused") else {"all": 1}):
            state = item["State"]
            is_running = state in ("running", "paused", "restarting")
            if state == "paused" if kind == "paused" else kind != "stopped" or not is_running:
                about = f"{item['Image']}, {item['Status']}"
                found += [(name.lstrip("/"), about) for name in item["Names"][:1]]
    if kind in ("images", "objects"):
        for item in client.get("/images/json"):
            found += [(tag, f"image {item['Id'].rpartition(':')[2][:12]}") for tag in item["RepoTags"] or ()]
            # "nginx" alone means "nginx:latest".
            found += [(tag[:-7], "image") for tag in item["RepoTags"] or () if tag.endswith(":latest")]
    if kind in ("networks", "members", "objects"):
        found += [(item["Name"], f"network, driver {item['Driver']}") for item in client.get("/networks")]
    return sorted(found)


_BASH = r"""# bash completion for tsunagu: source <(tsunagu completion bash)
_tsunagu() {
    local line=${COMP_LINE:0:COMP_POINT} program=${COMP_WORDS[0]} kind candidate current prefix word gap i
    local -a words=()
    # bash cuts words at : and = too: what no space separates is one word.
    for (( i = 0; i <= COMP_CWORD; i++ )); do
        word=${COMP_WORDS[i]}
        gap=${line%%[![:space:]]*}
        line=${line#"$gap"}
        (( i == COMP_CWORD )) && word=$line
        if (( i > 0 )) && [[ -z $gap ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        line=${line#"$word"}
    done
    current=${words[${#words[@]} - 1]}
    # and it takes replies for what follows the last cut only.
    prefix=$current
    while [[ -n $prefix && ! ( $prefix == *[:=] && $COMP_WORDBREAKS == *"${prefix: -1}"* ) ]]; do
        prefix=${prefix%?}
    done
    COMPREPLY=()
    type -P "$program" > /dev/null || program=tsunagu
    {
        read -r kind || return 0
        while IFS= read -r candidate; do
            COMPREPLY+=("${candidate#"$prefix"}")
        done
    } < <(command "$program" completion candidates -- "${words[@]:1}" 2> /dev/null)
    case $kind in
        files | directories)
            local IFS=$'\n' option=-f
            [[ $kind == directories ]] && option=-d
            compopt -o filenames 2> /dev/null
            COMPREPLY=($(compgen $option -- "${current#"$prefix"}"))
            ;;
    esac
}
complete -F _tsunagu tsunagu
"""

_ZSH = r"""#compdef tsunagu
# zsh completion for tsunagu: source <(tsunagu completion zsh)
_tsunagu() {
    local kind line tab=$'\t'
    local -a lines offers
    lines=("${(@f)$(command tsunagu completion candidates --describe -- "${(@)words[2,CURRENT]}" 2> /dev/null)}")
    kind=${lines[1]}
    for line in "${(@)lines[2,-1]}"; do
        if [[ $line == *${tab}* ]]; then
            offers+=("${${line%%${tab}*}//:/\\:}:${line#*${tab}}")
        elif [[ -n $line ]]; then
            offers+=("${line//:/\\:}")
        fi
    done
    [[ $kind == (files|directories) && ${words[CURRENT]} == --*=* ]] && compset -P '*='
    if [[ $kind == files ]]; then
        _files
    elif [[ $kind == directories ]]; then
        _files -/
    elif (( ${#offers} )); then
        _describe tsunagu offers
    fi
}
if [[ ${funcstack[1]} == _tsunagu ]]; then
    _tsunagu "$@"
elif (( ${+functions[compdef]} )); then
    compdef _tsunagu tsunagu
fi
"""

_FISH = r"""# fish completion for tsunagu: tsunagu completion fish | source
function __tsunagu_candidates
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -e words[1]
    set -l lines (command tsunagu completion candidates --describe -- $words "$current" 2> /dev/null)
    test (count $lines) -gt 0; or return
    set -l kind $lines[1]
    set -e lines[1]
    set -l flag (string match -r -- '^--[^=]*=' "$current")
    set -l path (string replace -r -- '^--[^=]*=' '' "$current")
    switch $kind
        case files
            printf '%s\n' "$flag"(__fish_complete_path "$path")
        case directories
            printf '%s\n' "$flag"(__fish_complete_directories "$path")
    end
    test (count $lines) -gt 0; and printf '%s\n' $lines
end
complete -c tsunagu -f -a '(__tsunagu_candidates)'
"""


def script(shell: str) -> str:
    """The completion script of "bash", "zsh" or "fish"."""
    return {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[shell]
