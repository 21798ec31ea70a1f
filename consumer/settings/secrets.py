"""Secrets: in a file that a setting names, or in the environment; never in our file, and nothing shows them."""

import codecs
import os
import re
import ssl
from base64 import b32decode
from binascii import crc_hqx
from pathlib import Path
from typing import Final

import msgspec

from consumer.errors import SettingsError

ENVIRONMENT: Final = "JOBSTATE_"
"""What the name of each of our environment variables begins with."""

_USER_INFO: Final = re.compile(r"(^|://|,)[^/,]*@")

_QUERY: Final = re.compile(r"[?#][^,\s]*")

_ANOTHER_FILE: Final = "name a user's credentials file (nsc generate creds, or as your NATS provider gives it)"

_JWT: Final = re.compile(r"[A-Za-z0-9_=-]+(\.[A-Za-z0-9_=-]+){2}")

_SEED_BYTES: Final = 36
"""Of a seed: two of what it is, 32 of the key, two of the checksum."""


class Secret:
    """A secret of the environment: falsy if there is none. Nothing shows it, and no encoder of ours writes it."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text: Final = text

    def reveal(self) -> str:
        """The secret itself: for whoever sends it where it belongs."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Secret({'***' if self._text else ''})"


def read_secret(path: str, name: str) -> str:
    """What the file at *path* holds, without the line break at its end. *name* is the setting, for the error.

    Read at each use, so a changed token needs no restart. Raises `SettingsError`; its text never holds the content.
    """
    text = _read_text(path, name, "write the secret into it")
    if not text:
        raise SettingsError(f"{name}: the file {path} is empty; write the secret into it, or leave the setting out")
    if not is_one_word(text) and not name.endswith("password_file"):
        raise SettingsError(
            f"{name}: the file {path} holds more than one line or a blank; it must hold the secret alone"
        )
    if "\0" in text:
        raise SettingsError(
            f"{name}: the file {path} holds a NUL character, which no secret has; write it anew as text"
        )
    return text


class Credentials(msgspec.Struct, frozen=True):
    """What a credentials file of NATS holds: who we are (a JWT), and the user's seed that proves it. Never shown."""

    jwt: str
    seed: str

    def __repr__(self) -> str:
        return "Credentials(***)"

    @property
    def text(self) -> str:
        """The same as such a file has it, with the line ends that nats-py can read."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{self.jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"
        )


def read_credentials(path: str, name: str) -> Credentials:
    """What the credentials file at *path* holds, whatever its line ends. *name* is the setting, for the error.

    Read for each connection, so a renewed file needs no restart. Raises `SettingsError`: file, reason, next step.
    """
    lines = [line.strip() for line in _read_text(path, name, _ANOTHER_FILE).splitlines()]
    lines = [line for line in lines if line]
    found = {}
    for part, begin in (("JWT", "BEGIN NATS USER JWT"), ("seed", "BEGIN USER NKEY SEED")):
        at = next((number for number, line in enumerate(lines) if begin in line), len(lines))
        found[part] = lines[at + 1] if at + 1 < len(lines) and not lines[at + 1].startswith("-") else ""
    missing = [part for part, text in found.items() if not text]
    if missing:
        what = "holds no credentials of NATS" if len(missing) == len(found) else f"holds no {missing[0]}"
        raise SettingsError(f"{name}: the file {path} {what}; {_ANOTHER_FILE}")
    jwt, seed = found["JWT"], found["seed"]
    if not _JWT.fullmatch(jwt):
        raise SettingsError(f"{name}: the JWT in the file {path} is damaged; {_ANOTHER_FILE}")
    if not _is_user_seed(seed):
        raise SettingsError(f"{name}: the seed in the file {path} is damaged, or no user's; {_ANOTHER_FILE}")
    return Credentials(jwt, seed)


def _is_user_seed(seed: str) -> bool:
    """Whether *seed* is that of a user: `SU…`, base32, with the checksum (CRC-16, XMODEM) in its last two bytes."""
    try:
        raw = b32decode(seed + "=" * (-len(seed) % 8))
    except ValueError:
        return False
    return seed.startswith("SU") and len(raw) == _SEED_BYTES and crc_hqx(raw[:-2], 0).to_bytes(2, "little") == raw[-2:]


def _read_text(path: str, name: str, step: str) -> str:
    """The text of the file at *path*, without blanks around it or a byte order mark. Raises `SettingsError`."""
    try:
        return Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        if isinstance(error, PermissionError):
            step = (
                f"let user {os.geteuid()} read it, `chown {os.geteuid()} FILE && chmod 400 FILE` as root, in a "
                "container with the FILE that is mounted there"
            )
        if _is_path(path):
            raise SettingsError(f"{name}: the file {path} cannot be read ({reason}); {step}") from error
        # It may be the secret itself, given by mistake: that must not be said on, nor stand in the cause.
        key = name.rpartition(" ")[2].removesuffix("_file")
        by_mistake = (
            "a setting names the file, and does not hold what stands in it"
            if key.endswith("credentials")
            else f"if this is the {key.rpartition('.')[2]} itself, set {ENVIRONMENT}{key.replace('.', '__').upper()} "
            "in its place"
        )
        raise SettingsError(
            f"{name}: the file of the name that is given, which is not shown, cannot be read ({reason}); it was looked "
            f"for in {_here()}; {by_mistake}"
        ) from None


def _here() -> str:
    """The folder that we run in, as an error names it."""
    try:
        return str(Path.cwd())
    except OSError:
        return "the working directory, which is gone"


def _is_path(text: str) -> bool:
    """Whether *text* names a file beyond doubt. A secret may have a slash within it, as base64 does."""
    folder = os.path.dirname(text)  # noqa: PTH120 - of pathlib "x" has the folder "."
    return text.startswith(("/", "./", "../")) or (bool(folder) and os.path.isdir(folder))  # noqa: PTH112 - too long: no


def secret_of(given: Secret, path: str, name: str) -> str:
    """What the environment gave, else what the file at *path* holds, else nothing. Raises as `read_secret`."""
    return given.reveal() or (read_secret(path, name) if path else "")


def trust(ca: str, name: str) -> ssl.SSLContext:
    """How TLS is spoken by whoever trusts the authorities in the file at *ca*; without one, those of the system.

    Raises `SettingsError`, with *name* of the setting.
    """
    try:
        data = Path(ca).read_bytes() if ca else b""
        if data.startswith(codecs.BOM_UTF8):  # OpenSSL would leave out the certificate that it stands before
            return ssl.create_default_context(cadata=data.decode("utf-8-sig"))
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ValueError, TypeError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(f"{name}: {ca} is no certificate authority in PEM; check the file") from error


def redact(url: str) -> str:
    """*url* (several: with commas) without user, password, token or query: fit to be shown."""
    return _QUERY.sub("?***", _USER_INFO.sub(r"\1***@", url))


def is_one_word(text: str) -> bool:
    """Whether *text* has neither a blank nor a line break nor another character that cannot be printed."""
    return not any(character.isspace() or not character.isprintable() for character in text)
