"""Where NATS servers are, and who we are to them."""

import importlib
import ssl
from typing import Final, Self

import msgspec

from consumer.errors import SettingsError
from consumer.faults import NatsFault
from consumer.nats import faults
from consumer.resolve import Resolver
from consumer.settings import Nats, read_credentials, redact, secret_of, trust

CREDENTIALS: Final = "nats.credentials_file"
"""The setting."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where the servers are, and who we are to them. *token* and *password* are the secrets; they are never shown.

    One that came from a file (*token_file*, *password_file*) is read from it again for each connection.
    """

    urls: tuple[str, ...]
    cluster: str = "main"
    token: str = ""
    token_file: str = ""
    user: str = ""
    password: str = ""
    password_file: str = ""
    credentials_file: str = ""
    tls: ssl.SSLContext | None = None
    tls_first: bool = False
    is_bacalhaus: bool = False
    resolver: Resolver = msgspec.field(default_factory=Resolver)
    """Looks up the hosts of *urls*, for all connections that are made to them."""

    @classmethod
    def of(cls, settings: Nats, cluster: str, url: str = "", bacalhau_url: str = "") -> Self:
        """Take the address from the settings; *url* replaces theirs, if it is given. Reads the secret now.

        Raises `SettingsError` where a secret cannot be read, or a credentials file cannot be used.
        *bacalhau_url*: where Bacalhau's own NATS is; who is refused is told if that is the same server.
        """
        url = url or settings.url
        if settings.credentials_file:
            read_credentials(settings.credentials_file, CREDENTIALS)
            _require_nkeys()
        return cls(
            urls=faults.addresses(url),
            cluster=cluster,
            token=secret_of(settings.token, settings.token_file, "nats.token_file"),
            token_file="" if settings.token else settings.token_file,
            user=settings.user,
            password=secret_of(settings.password, settings.password_file, "nats.password_file"),
            password_file="" if settings.password else settings.password_file,
            credentials_file=settings.credentials_file,
            tls=trust(settings.tls_ca, "nats.tls_ca") if settings.tls_ca else None,
            tls_first=settings.tls_first,
            is_bacalhaus=faults.is_same_server(url, bacalhau_url),
        )

    def __repr__(self) -> str:
        return f"Address({self})"

    def __str__(self) -> str:
        """The servers, fit to be shown."""
        return redact(",".join(self.urls))

    @property
    def refusal(self) -> NatsFault:
        """The fault (`consumer.nats.faults`) where it does not let us in."""
        return faults.BACALHAUS if self.is_bacalhaus else faults.REFUSED

    @property
    def inbox_prefix(self) -> str:
        """The prefix of every answer's subject: permissions can name it, and nobody else reads there (8)."""
        return f"_INBOX_jobstate_{self.cluster}"

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """How TLS is spoken, None where it is not asked for."""
        if self.tls is None and (self.tls_first or any(url.startswith("tls://") for url in self.urls)):
            return ssl.create_default_context()
        return self.tls


def _require_nkeys() -> None:
    """Refuse a credentials file where the package is missing that signs with it: nats-py has it as an extra."""
    try:
        importlib.import_module("nkeys")
    except ImportError as error:
        raise SettingsError(
            f"{CREDENTIALS}: the package nkeys is missing ({error}), and nothing can be signed without it: "
            "pip install 'nats-py[nkeys]'"
        ) from error
