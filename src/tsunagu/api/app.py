"""What handlers may use: the services, as attributes set by the composition root (`daemon.py`).

Only names; no behaviour. Handlers reach services through this object and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsunagu.services.archives import Archives
    from tsunagu.services.commits import Commits
    from tsunagu.services.connections import Connections
    from tsunagu.services.containers import Containers
    from tsunagu.services.dns import Dns
    from tsunagu.services.doctor import Doctor
    from tsunagu.services.engine import Engine
    from tsunagu.services.execs import Execs
    from tsunagu.services.images import Images
    from tsunagu.services.maps import Maps
    from tsunagu.services.networks import Networks
    from tsunagu.services.pausing import Pausing
    from tsunagu.services.sessions import Sessions
    from tsunagu.services.statistics import Statistics
    from tsunagu.services.system import System
    from tsunagu.services.updating import Updating
    from tsunagu.services.volumes import Volumes
    from tsunagu.services.why import Why


class App:
    """The services behind the API."""

    def __init__(
        self,
        *,
        engine: Engine,
        containers: Containers,
        pausing: Pausing,
        updating: Updating,
        sessions: Sessions,
        networks: Networks,
        connections: Connections,
        archives: Archives,
        commits: Commits,
        statistics: Statistics,
        images: Images,
        execs: Execs,
        system: System,
        volumes: Volumes,
        why: Why,
        doctor: Doctor,
        maps: Maps,
        dns: Dns,
    ) -> None:
        self.engine = engine
        self.containers = containers
        self.pausing = pausing
        self.updating = updating
        self.sessions = sessions
        self.networks = networks
        self.connections = connections
        self.archives = archives
        self.commits = commits
        self.statistics = statistics
        self.images = images
        self.execs = execs
        self.system = system
        self.volumes = volumes
        self.why = why
        self.doctor = doctor
        self.maps = maps
        self.dns = dns
