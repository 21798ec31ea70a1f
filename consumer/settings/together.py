"""Checks after loading: settings against each other, hosts, and the files that settings name."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from consumer.errors import SettingsError, quoted
from consumer.settings.catalog import all_settings
from consumer.settings.schema import Settings
from consumer.settings.secrets import ENVIRONMENT, read_credentials, read_secret

_AUTHORITIES: Final = "SSL_CERT_FILE"

_TLS: Final = re.compile(r"(^|,\s*)(https|tls|wss)://", re.IGNORECASE)


def check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    """What only several settings together can get wrong."""
    for section, keys in (
        ("nats", ("token_file", "token", "credentials_file", "password_file", "password")),
        ("bacalhau", ("token_file", "token")),
        ("orchestrator", ("token_file", "token", "password_file", "password")),
    ):
        one, *others = [key for key in keys if getattr(getattr(settings, section), key)] or [""]
        if others:
            first, second = f"{section}.{one}", f"{section}.{others[0]}"
            raise SettingsError(
                f"{origins[first]}: {first}: is set together with {second} ({origins[second]}); leave one of them out"
            )
    for section, of in (("nats", settings.nats), ("orchestrator", settings.orchestrator)):
        if bool(of.user) != bool(of.password_file or of.password):
            given = next(key for key in ("user", "password_file", "password") if getattr(of, key))
            variable = f"{ENVIRONMENT}{section.upper()}__"
            missing = (
                f"a password: give {section}.password_file or {variable}PASSWORD"
                if given == "user"
                else f"a user: give {section}.user ({variable}USER)"
            )
            origin = origins[f"{section}.{given}"]
            raise SettingsError(f"{origin}: {section}.{given}: needs {missing}, or leave both out")
    kinds = {_is_web(url) for url in settings.nats.url.split(",")}
    if len(kinds) > 1:
        raise SettingsError(
            f"{origins['nats.url']}: nats.url: ws:// or wss:// addresses stand together with others, and a connection "
            "is of one kind: write all of them as ws:// and wss://, or all as nats:// and tls://"
        )
    if "@" in settings.orchestrator.url:
        raise SettingsError(
            f"{origins['orchestrator.url']}: orchestrator.url: holds a user or a secret; put these into "
            "orchestrator.user with orchestrator.password_file, or orchestrator.token_file"
        )
    if settings.streams.replicas not in {1, 3, 5}:
        raise SettingsError(
            f"{origins['streams.replicas']}: streams.replicas: is 1, 3 or 5: an even number of servers has no better "
            f"majority (given: {settings.streams.replicas})"
        )


def _is_web(url: str) -> bool:
    return url.strip().startswith(("ws://", "wss://"))


def check_hosts(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse a host that no resolver could be asked for: each would find its own words for it, or none."""
    hosts = [("http.host", settings.http.host)]
    hosts += [
        (f"{section}.url", _host_of(url.strip()))
        for section in ("nats", "bacalhau", "orchestrator")
        for url in getattr(settings, section).url.split(",")
    ]
    for name, host in hosts:
        if host.startswith("[") and name == "http.host":
            raise SettingsError(f"{origins[name]}: {name}: write the address {quoted(host)} without its brackets")
        if not is_host(host):
            raise SettingsError(
                f"{origins[name]}: {name}: {quoted(host)} can be no host: between two dots stand 1 to 63 characters; "
                "write the name as DNS has it, or an address"
            )


def _host_of(url: str) -> str:
    """The host of *url*, or what stands in its place."""
    try:
        return urlsplit(url if "://" in url else f"//{url}").hostname or ""
    except ValueError:  # brackets that hold no address
        return url.rpartition("@")[2]


def is_host(name: str) -> bool:
    """Whether a resolver can be asked for *name*: the way it is spelled in DNS (IDNA) has a length for each label."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return "[" not in name


def _look_at_authorities(settings: Settings) -> Iterator[str]:
    """Warn where TLS is asked for and OpenSSL's own variable names no authorities: no certificate will be trusted."""
    file = os.environ.get(_AUTHORITIES, "")
    if not file or os.access(file, os.R_OK):
        return
    for section in ("nats", "bacalhau", "orchestrator"):
        given = getattr(settings, section)
        if _TLS.search(given.url) and not given.tls_ca:
            yield (
                f"{section}.url: no server's certificate will be trusted: {_AUTHORITIES} names {file}, which cannot be "
                f"read; mend or unset it, or set {section}.tls_ca"
            )


def look_at_files(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """Refuse files that are not there or say nothing; warn of secrets that everybody may read."""
    for setting in all_settings():
        if not setting.key.endswith(("token_file", "password_file", "credentials_file", "tls_ca")):
            continue
        path = getattr(getattr(settings, setting.section), setting.key)
        if not path:
            continue
        if setting.key.endswith(("token_file", "password_file")):
            read_secret(path, f"{origins[setting.name]}: {setting.name}")
        elif setting.key == "credentials_file":
            read_credentials(path, f"{origins[setting.name]}: {setting.name}")
        elif not os.access(path, os.R_OK) or Path(path).stat().st_size == 0:
            raise SettingsError(
                f"{origins[setting.name]}: {setting.name}: the file {path} is missing, empty or cannot be read; "
                "name another, or mend it"
            )
        if setting.key != "tls_ca" and Path(path).stat().st_mode & stat.S_IROTH:
            yield f"{setting.name}: everybody on this machine may read {path}; chmod o-r"
    yield from _look_at_authorities(settings)
    for section in ("nats", "bacalhau"):
        variable = f"{ENVIRONMENT}{section.upper()}__TOKEN"  # in the file it would be refused
        if "@" in getattr(settings, section).url:
            user = f", or {section}.user and {section}.password_file" if section == "nats" else ""
            yield f"{section}.url: holds a secret, and is not kept as one; use {section}.token_file or {variable}{user}"
