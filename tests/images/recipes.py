"""What is in each test image: packages, files and configuration, as plain data.

May import the standard library only. It must never touch the system: `rootfs.py` builds layers, `archive.py` writes
archives.
A change of a recipe changes its key, and only images whose key changed are built again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform

# Raise when the way layers or archives are written changes, so that cached archives are made anew.
FORMAT = 4

# Not needed to run anything, and half of the size: left out when packages are unpacked.
EXCLUDED_PATHS = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
    "/usr/share/i18n/*",
    "/usr/share/zoneinfo/right/*",
    "/usr/lib/*/gconv/*",
)

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NGINX_PAGE = """<!DOCTYPE html>
<html>
<head>
<title>Welcome to nginx!</title>
<style>body { font-family: sans-serif; margin: 3em auto; max-width: 40em; }</style>
</head>
<body>
<h1>Welcome to nginx!</h1>
<p>This page comes from the web server of a test container: it started, and you can reach it.</p>
</body>
</html>
"""

# MySQL's image takes server options as its command; MariaDB refuses some of them, so they are dropped here.
MYSQL_ENTRYPOINT = r"""#!/bin/sh
set -eu
case "${1:-}" in
    -*) set -- mysqld "$@" ;;
esac
if [ "${1:-}" != mysqld ]; then
    exec "$@"
fi
shift
skip=no
count=$#
while [ "$count" -gt 0 ]; do
    word=$1
    shift
    count=$((count - 1))
    if [ "$skip" = yes ]; then
        skip=no
        continue
    fi
    case "$word" in
        --default-authentication-plugin=* | --authentication-policy=* | --mysqlx=* | --mysqlx-*) continue ;;
        --default-authentication-plugin | --authentication-policy) skip=yes; continue ;;
    esac
    set -- "$@" "$word"
done
sql=/run/mysqld/first.sql
mkdir -p /run/mysqld
: > "$sql"
if [ -n "${MYSQL_DATABASE:-}" ]; then
    echo "CREATE DATABASE IF NOT EXISTS \`$MYSQL_DATABASE\`;" >> "$sql"
fi
if [ -n "${MYSQL_ROOT_PASSWORD:-}" ]; then
    echo "ALTER USER root@localhost IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';" >> "$sql"
    echo "ALTER USER root@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';" >> "$sql"
fi
chown -R mysql:mysql /run/mysqld
exec mariadbd --user=mysql --bind-address=0.0.0.0 --init-file="$sql" "$@"
"""

MYSQL_CONFIG = """[mariadbd]
datadir = /var/lib/mysql
socket = /run/mysqld/mysqld.sock
pid-file = /run/mysqld/mysqld.pid
skip-name-resolve
performance_schema = off
innodb_log_file_size = 4M
innodb_buffer_pool_size = 16M
innodb_buffer_pool_dump_at_shutdown = off
key_buffer_size = 1M
aria_pagecache_buffer_size = 1M

[client]
socket = /run/mysqld/mysqld.sock
"""

MYSQL_SETUP = r"""
groupadd --system --gid 999 mysql
useradd --system --uid 999 --gid mysql --home-dir /var/lib/mysql --no-create-home --shell /usr/sbin/nologin mysql
rm -rf /var/lib/mysql
install -d -o mysql -g mysql -m 0750 /var/lib/mysql
install -d -o mysql -g mysql /run/mysqld
mariadb-install-db --user=mysql --datadir=/var/lib/mysql --auth-root-authentication-method=normal \
    --skip-test-db --force > /dev/null
{
    echo "USE mysql;"
    echo "FLUSH PRIVILEGES;"
    echo "CREATE USER root@'%' IDENTIFIED BY '';"
    echo "GRANT ALL PRIVILEGES ON *.* TO root@'%' WITH GRANT OPTION;"
} | mariadbd --bootstrap --user=mysql --datadir=/var/lib/mysql > /dev/null
rm -f /var/lib/mysql/*.log /var/lib/mysql/*.err
"""

NGINX_SETUP = """
rm -f /var/www/html/index.nginx-debian.html
ln -sf /dev/stdout /var/log/nginx/access.log
ln -sf /dev/stderr /var/log/nginx/error.log
dpkg-query --show --showformat='${source:Upstream-Version}' nginx > /etc/image-version
"""

# The answer is written when the container starts, because only then its host name is known.
MYAPP_START = """#!/bin/sh
hostname > /www/host
exec httpd -f -p 8080 -h /www
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: packages installed over its parent, files written, a shell script run in it as root."""

    name: str
    parent: str = ""
    packages: tuple[str, ...] = ()
    # path -> (mode, text); directories are made
    files: tuple[tuple[str, int, str], ...] = ()
    setup: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """One archive: references that share a configuration over a chain of layers."""

    references: tuple[str, ...]
    layer: str
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = (PATH,)
    ports: tuple[str, ...] = ()
    stop_signal: str = ""
    # an environment variable whose value the layer wrote to /etc/image-version
    version_variable: str = ""

    @property
    def file_name(self) -> str:
        return self.references[0].replace(":latest", "").replace(":", "_").replace("/", "_")


LAYERS = {
    layer.name: layer
    for layer in (
        Layer(name="busybox"),
        Layer(
            name="myapp",
            parent="busybox",
            files=(
                ("/usr/local/bin/serve", 0o755, MYAPP_START),
                ("/www/index.html", 0o644, "a small server: /host answers the name of its container\n"),
            ),
        ),
        Layer(name="debian"),
        Layer(
            name="nginx",
            parent="debian",
            packages=("nginx-light", "curl", "iputils-ping"),
            files=(("/var/www/html/index.html", 0o644, NGINX_PAGE),),
            setup=NGINX_SETUP,
        ),
        Layer(name="redis", parent="debian", packages=("redis-server", "iputils-ping")),
        Layer(
            name="mysql",
            parent="debian",
            packages=("mariadb-server-core", "mariadb-client-core", "iputils-ping"),
            files=(
                ("/usr/local/bin/docker-entrypoint.sh", 0o755, MYSQL_ENTRYPOINT),
                ("/etc/mysql/my.cnf", 0o644, MYSQL_CONFIG),
            ),
            setup=MYSQL_SETUP,
        ),
        Layer(
            name="bench",
            parent="debian",
            packages=(
                "bind9-dnsutils",
                "dnsperf",
                "iproute2",
                "curl",
                "netcat-openbsd",
                "iputils-ping",
                "busybox",
                "redis-tools",
            ),
        ),
    )
}

IMAGES = (
    Image(references=("alpine:latest",), layer="busybox", cmd=("/bin/sh",)),
    Image(references=("busybox:latest",), layer="busybox", cmd=("/bin/sh",)),
    Image(
        references=("myapp:latest", "myapp:v1", "user-service:latest", "order-service:latest"),
        layer="myapp",
        cmd=("serve",),
        ports=("8080/tcp",),
    ),
    Image(
        references=("nginx:latest",),
        layer="nginx",
        cmd=("nginx", "-g", "daemon off;"),
        ports=("80/tcp",),
        stop_signal="SIGQUIT",
        version_variable="NGINX_VERSION",
    ),
    Image(
        references=("redis:alpine",),
        layer="redis",
        cmd=("redis-server", "--protected-mode", "no", "--save", ""),
        ports=("6379/tcp",),
    ),
    Image(
        references=("mysql:8",),
        layer="mysql",
        entrypoint=("docker-entrypoint.sh",),
        cmd=("mysqld",),
        ports=("3306/tcp", "33060/tcp"),
    ),
    Image(references=("bench:latest",), layer="bench", cmd=("sleep", "infinity")),
)


def layer_chain(name: str) -> tuple[Layer, ...]:
    """The layers of an image from the lowest up."""
    layer = LAYERS[name]
    return (*(layer_chain(layer.parent) if layer.parent else ()), layer)


def layer_key(name: str, codename: str) -> str:
    """16 hex digits that change with the recipe, its parents, the Debian release and the machine's architecture."""
    text = repr((FORMAT, codename, platform.machine(), EXCLUDED_PATHS, layer_chain(name)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def archive_key(images: tuple[Image, ...], codename: str) -> str:
    """16 hex digits that change with anything that an archive of `images` holds."""
    text = repr([(image, layer_key(image.layer, codename)) for image in images])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
