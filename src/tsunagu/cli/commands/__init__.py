"""The table of commands: words -> (module in this package, attribute holding the Command).

Only the module of the command that runs is imported. Spellings that Docker accepts but does not list point to the same
attribute and are named in HIDDEN. Must import nothing.
"""

from __future__ import annotations

Entry = tuple[str, str]

CONTAINER: dict[str, Entry] = {
    "attach": ("attach", "ATTACH"),
    "commit": ("changes", "COMMIT"),
    "cp": ("cp", "CP"),
    "create": ("run", "CREATE"),
    "diff": ("changes", "DIFF"),
    "exec": ("exec", "EXEC"),
    "export": ("changes", "EXPORT"),
    "inspect": ("inspect", "CONTAINER_INSPECT"),
    "kill": ("containers", "KILL"),
    "logs": ("logs", "LOGS"),
    "ls": ("ps", "PS"),
    "list": ("ps", "PS"),
    "ps": ("ps", "PS"),
    "pause": ("pausing", "PAUSE"),
    "port": ("containers", "PORT"),
    "prune": ("prune", "CONTAINER_PRUNE"),
    "rename": ("containers", "RENAME"),
    "restart": ("containers", "RESTART"),
    "rm": ("containers", "RM"),
    "remove": ("containers", "RM"),
    "run": ("run", "RUN"),
    "start": ("attach", "START"),
    "stats": ("stats", "STATS"),
    "stop": ("containers", "STOP"),
    "top": ("containers", "TOP"),
    "unpause": ("pausing", "UNPAUSE"),
    "update": ("update", "UPDATE"),
    "wait": ("containers", "WAIT"),
}
IMAGE: dict[str, Entry] = {
    "history": ("images", "HISTORY"),
    "import": ("archives", "IMPORT"),
    "inspect": ("inspect", "IMAGE_INSPECT"),
    "load": ("archives", "LOAD"),
    "ls": ("images", "IMAGES"),
    "list": ("images", "IMAGES"),
    "prune": ("prune", "IMAGE_PRUNE"),
    "pull": ("archives", "PULL"),
    "rm": ("images", "RMI"),
    "remove": ("images", "RMI"),
    "save": ("archives", "SAVE"),
    "tag": ("images", "TAG"),
}
NETWORK: dict[str, Entry] = {
    "connect": ("networks", "CONNECT"),
    "create": ("networks", "CREATE"),
    "disconnect": ("networks", "DISCONNECT"),
    "inspect": ("inspect", "NETWORK_INSPECT"),
    "ls": ("networks", "LS"),
    "list": ("networks", "LS"),
    "prune": ("prune", "NETWORK_PRUNE"),
    "rm": ("networks", "RM"),
    "remove": ("networks", "RM"),
}
VOLUME: dict[str, Entry] = {
    "create": ("volumes", "CREATE"),
    "inspect": ("inspect", "VOLUME_INSPECT"),
    "ls": ("volumes", "LS"),
    "list": ("volumes", "LS"),
    "prune": ("prune", "VOLUME_PRUNE"),
    "rm": ("volumes", "RM"),
    "remove": ("volumes", "RM"),
}
SYSTEM: dict[str, Entry] = {
    "df": ("df", "DF"),
    "events": ("events", "EVENTS"),
    "info": ("info", "INFO"),
    "prune": ("prune", "SYSTEM_PRUNE"),
}
COMPLETION: dict[str, Entry] = {
    "bash": ("completion", "BASH"),
    "candidates": ("completion", "CANDIDATES"),
    "fish": ("completion", "FISH"),
    "zsh": ("completion", "ZSH"),
}
DNS: dict[str, Entry] = {
    "log": ("dns", "LOG"),
    "ls": ("dns", "LS"),
    "list": ("dns", "LS"),
    "query": ("dns", "QUERY"),
}
GROUPS: dict[str, tuple[str, dict[str, Entry]]] = {
    "completion": ("Print the completion script for a shell", COMPLETION),
    "container": ("Manage containers", CONTAINER),
    "dns": ("Show names, answers and queries", DNS),
    "image": ("Manage images", IMAGE),
    "network": ("Manage networks", NETWORK),
    "system": ("Manage the engine", SYSTEM),
    "volume": ("Manage volumes", VOLUME),
}
TOP: dict[str, Entry] = {
    "run": CONTAINER["run"],
    "exec": CONTAINER["exec"],
    "ps": CONTAINER["ps"],
    "pull": IMAGE["pull"],
    "images": IMAGE["ls"],
    "version": ("version", "VERSION"),
    "info": SYSTEM["info"],
    "attach": CONTAINER["attach"],
    "commit": CONTAINER["commit"],
    "cp": CONTAINER["cp"],
    "create": CONTAINER["create"],
    "daemon": ("daemon", "DAEMON"),
    "diff": CONTAINER["diff"],
    "doctor": ("doctor", "DOCTOR"),
    "events": SYSTEM["events"],
    "export": CONTAINER["export"],
    "history": IMAGE["history"],
    "import": IMAGE["import"],
    "inspect": ("inspect", "INSPECT"),
    "kill": CONTAINER["kill"],
    "load": IMAGE["load"],
    "logs": CONTAINER["logs"],
    "map": ("map", "MAP"),
    "pause": CONTAINER["pause"],
    "port": CONTAINER["port"],
    "rename": CONTAINER["rename"],
    "restart": CONTAINER["restart"],
    "rm": CONTAINER["rm"],
    "rmi": IMAGE["rm"],
    "save": IMAGE["save"],
    "start": CONTAINER["start"],
    "stats": CONTAINER["stats"],
    "stop": CONTAINER["stop"],
    "tag": IMAGE["tag"],
    "top": CONTAINER["top"],
    "unpause": CONTAINER["unpause"],
    "update": CONTAINER["update"],
    "wait": CONTAINER["wait"],
    "why": ("why", "WHY"),
}
COMMON = ("run", "exec", "ps", "pull", "images", "version", "info")
HIDDEN = ("list", "remove")
HIDDEN_PATHS = ("container ps", "completion candidates")
