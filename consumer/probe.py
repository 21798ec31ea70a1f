"""`python -m consumer.probe`: whether the daemon of this container lives, for the image's health check.

A check runs every ten seconds, so nothing is imported here that takes time. It asks the address that the daemon itself
wrote (`http.address_file`): no setting can make it ask elsewhere. And it asks by a socket, so no proxy is in between.
"""

import os
import socket
import sys

FILE = "JOBSTATE_HTTP__ADDRESS_FILE"
"""The variable that names the file."""
ANSWER_S = 4
"""Seconds to wait for an answer."""
_MAX = 64 * 1024


def ask(url: str) -> str:
    """Ask `/livez` of the daemon at *url*: its answer if it does not live, else an empty text. Raises `OSError`."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S) as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        answer = b""
        while len(answer) < _MAX and (more := connection.recv(_MAX)):
            answer += more
    head, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
    status = head.partition("\r\n")[0]
    return "" if " 200 " in status else f"{status}: {body}"


def main() -> None:
    """Exit 0: it lives. 1, with a sentence: it does not, or nobody can tell."""
    name = os.environ.get(FILE, "")
    if not name:
        sys.exit(f"{FILE} is not set: the daemon writes its address to the file that it names, and this reads it there")
    try:
        with open(name, encoding="utf-8") as file:  # noqa: PTH123 (pathlib takes as long as all the rest)
            url = file.read().strip()
        sys.exit(ask(url) or 0)
    except FileNotFoundError:
        sys.exit(f"{name} is not there: the daemon has not come up yet, or has ended")
    except (OSError, ValueError) as error:
        sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main()
