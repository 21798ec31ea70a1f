"""Judges a NATS server, ours or Bacalhau's: its answers, its safety, our credentials and permissions."""

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from consumer.doctor.facts import Account, Contact, Permissions
from consumer.doctor.finding import Finding, fail, ok, say_bytes, say_named, warn
from consumer.faults import Denied
from consumer.nats import api
from consumer.nats import faults as saying
from consumer.wire.subjects import Names

SERVER_MIN: Final = (2, 11)
"""2.10 ignores the filter of the compare-and-set without a word (design/nats.md 1.1)."""
SERVER_KNOWN: Final = (2, 15)
"""The last one that was tried."""
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.")


def reach(side: saying.Side, contact: Contact) -> Finding:
    """*side* is "nats" or "bacalhau": the section of the settings, and what the checks' names begin with."""
    check, where, fault = f"{side}.reach", contact.address, contact.fault
    if fault in {"away", "unresolved", "silent", "alien", "other"}:
        how = {"away": f"nobody answers at {where}", "other": f"no connection to {where}"}.get(fault, where)
        return fail(check, f"{how}: {saying.words(fault, contact.why)}", saying.next_step(side, fault))
    if contact.others_away:
        return warn(
            check,
            f"{where} answers, but not {say_named(contact.others_away)}",
            f"start it, or take it out of {side}.url: it is tried when the others are gone",
        )
    return ok(check, f"{where} answers" + (f" ({contact.server})" if contact.server and side == "bacalhau" else ""))


def tls(side: saying.Side, contact: Contact) -> Finding:
    """Whether the way to it is private, as far as that is asked for."""
    check = f"{side}.tls"
    if contact.fault in saying.OF_TLS:
        step = saying.next_step(side, contact.fault)
        return fail(check, f"TLS with {contact.address} fails: {contact.why}", step)
    if contact.private:
        return ok(check, "TLS is spoken, and the certificate holds")
    if contact.secret and not contact.loopback:
        return warn(
            check,
            f"no TLS: our credential goes to {contact.address} in the clear",
            ("" if contact.offers_tls else "enable TLS on that server, then ")
            + f"write tls:// in {side}.url, or name {side}.tls_ca, if the way there is not your own",
        )
    return ok(check, "not asked for, and not needed on the loopback" if contact.loopback else "not asked for")


def auth(side: saying.Side, contact: Contact) -> Finding:
    """Judge whether it accepts our credentials."""
    check = f"{side}.auth"
    if contact.fault in {saying.REFUSED, saying.BACALHAUS}:
        ours = "our credential" if contact.secret else "us: it wants a credential, and we have none"
        step = saying.next_step(side, contact.fault)
        return fail(check, f"{contact.address} refuses {ours} ({contact.why})", step)
    return ok(check, "it takes our credential" if contact.secret else "it asks for no credential")


def subscribe(contact: Contact, subjects: int) -> Finding:
    """Whether Bacalhau's NATS lets us hear all that is read."""
    check = "bacalhau.subscribe"
    if contact.fault == "denied":
        return fail(
            check,
            f"a subject may not be subscribed: {contact.why}",
            "grant this user all subjects of docs/guide/real-cluster.md (the least that is needed); one that is "
            "missing keeps the tap deaf",
        )
    return ok(check, f"all {subjects} subjects are subscribed")


def bacalhau_version(contact: Contact) -> Finding:
    """Which server it is: any version will do, we only listen there."""
    return ok("bacalhau.version", f"nats-server {contact.version}, named {contact.server}")


def version(contact: Contact) -> Finding:
    """Whether our NATS keeps what the log relies on."""
    check, found = "nats.version", _VERSION.match(contact.version)
    number = (int(found[1]), int(found[2])) if found else (0, 0)
    if number < SERVER_MIN:
        return fail(
            check,
            f"nats-server {contact.version}; 2.11 or later is needed: older ones ignore the filter of the "
            "compare-and-set, and two daemons would write states twice",
            "upgrade every server of that cluster (Bacalhau's own NATS may be older)",
        )
    if number > SERVER_KNOWN:
        return warn(
            check, f"nats-server {contact.version} is newer than what was tried (2.11 to 2.15)", "report how it goes"
        )
    return ok(check, f"nats-server {contact.version}")


def jetstream(account: Account | None, trouble: str, denied: Denied | None = None) -> Finding:
    """Whether JetStream is there for us. *account* None: it is not; *trouble* and *denied* say why."""
    check = "nats.jetstream"
    if account is None:
        return fail(
            check,
            f"no JetStream for us: {trouble}",
            step_for_denied(denied, api.ACCOUNT_INFO)
            or "start nats-server with -js (or a jetstream block), and enable it for the account of this user",
        )
    if account.level < 1:
        return fail(
            check,
            "the leader of that cluster is older than nats-server 2.11 (API level 0)",
            "upgrade every server of the cluster: the check of each append runs where the stream's leader is",
        )
    return ok(check, f"there, API level {account.level}; {account.streams} streams in the account")


def payload(contact: Contact, needed: int) -> Finding:
    """Whether the largest report that the settings allow fits into a message."""
    check, most = "nats.payload", contact.max_payload
    if most < needed:
        return fail(
            check,
            f"the largest message is {say_bytes(most)} (max_payload), needed are {say_bytes(needed)}",
            "raise max_payload in the server's configuration, or lower limits.message_bytes: the daemon does not start",
        )
    return ok(check, f"messages of up to {say_bytes(most)}")


def asks(permissions: Permissions | None, names: Names, mode: Literal["create", "bind"]) -> Finding:
    """Whether the user may ask all that the daemon asks. None: the server does not tell (it may not be asked that)."""
    check = "nats.asks"
    if permissions is None:
        return _untold(check)
    inbox = f"_INBOX_jobstate_{names.cluster}.>"
    needed = [api.ACCOUNT_INFO]
    for stream in _streams(names):
        needed += [subject.format(stream) for subject in (api.STREAM_INFO, api.MESSAGE_GET)]
        needed += [
            subject.format(stream, ">") for subject in (api.CONSUMER_CREATE, api.CONSUMER_DELETE, api.CONSUMER_NEXT)
        ]
    missing = list(_not_allowed(needed, permissions.publish_allow, permissions.publish_deny))
    deaf = list(_not_allowed([inbox], permissions.subscribe_allow, permissions.subscribe_deny))
    if missing or deaf:
        what = f"publish {say_named(missing, 4)}" if missing else f"subscribe {inbox}"
        return fail(check, f"{_who(permissions)} may not {what}", _GRANT)
    making = [api.STREAM_CREATE.format(stream) for stream in _streams(names)]
    making.append(api.STREAM_DELETE.format(names.bucket_stream))
    missing = list(
        _not_allowed(making if mode == "create" else [], permissions.publish_allow, permissions.publish_deny)
    )
    if missing:
        return warn(
            check,
            f"{_who(permissions)} may not publish {say_named(missing, 4)}: streams that are absent cannot be made",
            f'{_GRANT}, or set streams.mode = "bind" and make them yourself',
        )
    return ok(check, f"{_who(permissions)} may ask all that the daemon asks")


def writes(permissions: Permissions | None, names: Names) -> Finding:
    """Whether the user may publish all that the daemon publishes."""
    check = "nats.writes"
    if permissions is None:
        return _untold(check)
    needed = (*names.log_subjects, *names.refused_subjects)
    missing = list(_not_allowed(needed, permissions.publish_allow, permissions.publish_deny))
    if missing:
        return fail(
            check, f"{_who(permissions)} may not publish {say_named(missing)}: nothing could be written", _GRANT
        )
    return ok(check, f"{_who(permissions)} may publish all that the daemon publishes")


_GRANT: Final = "grant what docs/operations/running.md (permissions) lists for the daemon"


def step_for_denied(denied: Denied | None, asked: str = "") -> str:
    """The next step if a permission is missing; else empty.

    *asked*: the subject of the request, as the permission has to name it (our client hears it in lower case).
    """
    if denied is None:
        return ""
    if denied.operation == "subscription":
        return f"let this user subscribe _INBOX_jobstate_<cluster>.>: {_GRANT}"
    return f"let this user publish {asked}: {_GRANT}" if asked else _GRANT


def _untold(check: str) -> Finding:
    return warn(
        check,
        "this user may not ask the server what it may do",
        "allow it $SYS.REQ.USER.INFO, or look at its permissions in the server's configuration",
    )


def _who(permissions: Permissions) -> str:
    return f"user {permissions.user}" if permissions.user else "this user"


def _streams(names: Names) -> tuple[str, ...]:
    return (names.log, names.input, names.refused, names.bucket_stream)


def _not_allowed(needed: Iterable[str], allow: tuple[str, ...] | None, deny: tuple[str, ...]) -> Iterator[str]:
    for subject in needed:
        allowed = allow is None or any(covers(pattern, subject) for pattern in allow)
        if not allowed or any(meets(pattern, subject) for pattern in deny):
            yield subject


def covers(pattern: str, subject: str) -> bool:
    """Whether *pattern* takes in everything that *subject* (which may be a pattern too) names."""
    pattern = pattern.partition(" ")[0]  # a queue group may follow
    wide, narrow = pattern.split("."), subject.split(".")
    for index, token in enumerate(wide):
        if token == ">":
            return len(narrow) > index
        if index >= len(narrow) or narrow[index] == ">":
            return False
        if token not in {"*", narrow[index]}:
            return False
    return len(wide) == len(narrow)


def meets(pattern: str, subject: str) -> bool:
    """Whether some subject is taken in by both."""
    one, other = pattern.partition(" ")[0].split("."), subject.split(".")
    for index in range(max(len(one), len(other))):
        if index >= len(one) or index >= len(other):
            return False
        if ">" in {one[index], other[index]}:
            return True
        if one[index] != other[index] and "*" not in {one[index], other[index]}:
            return False
    return True
