"""A nats-server in operator mode, and users with credentials files: what `nsc` makes, made with the package nkeys.

The tokens are JWTs signed with Ed25519 keys (docs.nats.io, "JWTs and Privacy"): the operator vouches for the account,
the account for its user.
"""

import base64
import json
import os
from typing import Any, Final

import nkeys  # type: ignore[import-untyped] # it has no types

BEGIN_JWT: Final = "-----BEGIN NATS USER JWT-----"
BEGIN_SEED: Final = "-----BEGIN USER NKEY SEED-----"
_NO_LIMIT: Final = -1


class Key:
    """One key pair; *prefix* says whose."""

    def __init__(self, prefix: int) -> None:
        self.seed: Final = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._pair: Final = nkeys.from_seed(bytearray(self.seed.encode()))

    @property
    def public(self) -> str:
        """As tokens and configurations name it."""
        return bytes(self._pair.public_key).decode()

    def sign(self, subject: str, name: str, facts: dict[str, Any]) -> str:
        """A JWT by which this key vouches for *subject*."""
        claims = {"jti": name, "iat": 1, "iss": self.public, "name": name, "sub": subject, "nats": facts}
        head = _encoded(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
        signed = f"{head}.{_encoded(json.dumps(claims).encode())}"
        return f"{signed}.{_encoded(self._pair.sign(signed.encode()))}"


class Operator:
    """An operator with one account, with the limits *more*, that has JetStream."""

    def __init__(self, **more: int | bool) -> None:
        self._operator: Final = Key(nkeys.PREFIX_BYTE_OPERATOR)
        self.account: Final = Key(nkeys.PREFIX_BYTE_ACCOUNT)
        free: Final = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        storage: Final = ("mem_storage", "disk_storage", "streams", "consumer")
        given = dict.fromkeys((*free, *storage), _NO_LIMIT) | {"wildcards": True} | more
        system = Key(nkeys.PREFIX_BYTE_ACCOUNT)  # JetStream asks for one
        most = {self.account.public: given, system.public: dict.fromkeys(free, _NO_LIMIT)}
        preloaded = ", ".join(
            f'{account}: "{self._operator.sign(account, account, {"type": "account", "version": 2, "limits": limits})}"'
            for account, limits in most.items()
        )
        own = self._operator.sign(self._operator.public, "op", {"type": "operator", "version": 2})
        self.configuration: Final = (
            f'operator: "{own}"\nsystem_account: {system.public}\n'
            f"resolver: MEMORY\nresolver_preload: {{ {preloaded} }}\n"
        )
        """Lines of the server's configuration."""

    def credentials(self) -> str:
        """The credentials file of a new user of the account, who may do everything."""
        user = Key(nkeys.PREFIX_BYTE_USER)
        facts = {"type": "user", "version": 2, "subs": _NO_LIMIT, "data": _NO_LIMIT, "payload": _NO_LIMIT}
        token = self.account.sign(user.public, "me", {"pub": {}, "sub": {}, **facts})
        return (
            f"{BEGIN_JWT}\n{token}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\n"
            "NKEY Seed printed below can be used to sign and prove identity.\n"
            "NKEYs are sensitive and should be treated as secrets.\n\n"
            f"{BEGIN_SEED}\n{user.seed}\n------END USER NKEY SEED------\n\n"
            "*************************************************************\n"
        )


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
