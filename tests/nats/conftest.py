"""One server for all tests that do it no harm, as in `tests.jetstream`."""

from tests.jetstream.conftest import names as names  # noqa: PLC0414 - a fixture
from tests.jetstream.conftest import reader as reader  # noqa: PLC0414
from tests.jetstream.conftest import shared_server as shared_server  # noqa: PLC0414
