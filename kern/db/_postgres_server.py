"""Reads the URL of a Postgres server, and keeps its password out of texts."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from kern._secrets import Masked, Masker
from kern.errors import UsageError

_SECRET_OPTIONS = {"password", "sslpassword"}
_EXAMPLE = "postgresql://user:password@host:5432/database"


@dataclass(slots=True, frozen=True)
class Server:
    """A database on a server.

    Args:
        url: The URL without its password.
        password: The password; None if the URL has none.
        shown: The text for errors and `repr`: user, hosts and database.
        place: A value that is equal for URLs of the same database.
        mask: Removes the password from a text.
    """

    url: str
    password: Masked | None = field(repr=False)
    shown: str
    place: Hashable
    mask: Masker = field(repr=False, compare=False)
    """Removes the password from a text."""

    @classmethod
    def of(cls, url: object) -> Server:
        """Parse a URL.

        Raises:
            UsageError: It is not a URL of Postgres. The message does not show it, since it may hold a
                password.
        """
        if not isinstance(url, str):
            raise UsageError(f"db_url must be a str such as {_EXAMPLE!r}, not a {type(url).__name__}")
        if re.match(r"postgres(ql)?(\+\w+)?://", url) is None:
            raise UsageError(f"db_url is not a URL of Postgres; write {_EXAMPLE!r}")
        try:
            parts = urlsplit(url)
        except ValueError:  # its text may hold the password
            _refuse()
        if parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.path:
            _refuse()
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        secret = options.get("password") or unquote(password)
        kept = {name: value for name, value in options.items() if name != "password"}
        if not hosts and "host" not in kept and "," in os.environ.get("PGHOST", ""):
            kept["host"] = os.environ["PGHOST"]
        kept.setdefault("application_name", "kern")
        where: dict[str, str] = {name: options[name] for name in ("host", "port") if name in options}
        netloc = f"{user}@{hosts}" if user else hosts
        shown = f"postgresql://{netloc}{parts.path}" + (f"?{urlencode(where, safe='/,')}" if where else "")
        database = options.get("dbname") or options.get("database") or unquote(parts.path[1:])
        name = unquote(user) or options.get("user")
        return cls(
            url=f"postgresql://{netloc}{parts.path}" + (f"?{urlencode(kept)}" if kept else ""),
            password=Masked(secret) if secret else None,
            shown=shown,
            place=(_hosts(options.get("host") or hosts, options.get("port")), database or name),
            mask=Masker([secret, *(value for key, value in options.items() if key in _SECRET_OPTIONS)]),
        )

    def rotations(self) -> list[str]:
        """The URL, once with each of its hosts as the first one."""
        parts = urlsplit(self.url)
        login, at, hosts = parts.netloc.rpartition("@")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        names, ports = (hosts or options.get("host", "")).split(","), options.get("port", "").split(",")
        if len(ports) == 1:  # older drivers want one for each host
            ports *= len(names)
        rotated = []
        for first in range(len(names)):
            host, port = (",".join(items[first:] + items[:first]) for items in (names, ports))
            turned = {**options, **({} if hosts else {"host": host}), "port": port}
            query = urlencode({name: turned[name] for name in options})
            netloc = f"{login}{at}{host}" if hosts else parts.netloc
            rotated.append(f"{parts.scheme}://{netloc}{parts.path}" + (f"?{query}" if query else ""))
        return rotated


def _hosts(hosts: str, port: str | None) -> str:
    """The hosts in a canonical form: lower case, with the default port written out."""
    ports = (port or "").split(",")
    named = []
    for place, written in enumerate(unquote(hosts).split(",")):
        host = written if written.startswith("/") else written.lower()  # the folder of a socket, or a name
        own = ports[place] if place < len(ports) else ports[0]
        has_port = re.search(r"[^:/]:\d+$|\]:\d+$", host) is not None
        named.append(host if has_port else f"{host}:{own or 5432}")
    return ",".join(named)


def _refuse() -> NoReturn:
    raise UsageError(
        "db_url cannot be parsed; in user and password write %40 for @, %2F for /, %23 for #, %3F for ? "
        "and %3A for : (urllib.parse.quote(password, safe='') does this)"
    ) from None
