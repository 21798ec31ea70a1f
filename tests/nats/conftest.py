"""One server for all tests that do it no harm, as in `tests.jetstream`."""

from tests.jetstream.conftest import names as names
from tests.jetstream.conftest import reader as reader
from tests.jetstream.conftest import shared_server as shared_server
