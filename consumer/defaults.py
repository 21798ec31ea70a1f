"""Defaults that a setting and a part of the core share: stated here once, since neither imports the other.

The settings that are nobody else's have theirs in `consumer.settings.schema`.
"""

from typing import Final

MAX_RATE: Final = 200.0
"""`orchestrator.max_rate`, requests a second."""
CONCURRENCY: Final = 8
"""`orchestrator.concurrency`, requests at once."""
TURN_RATE: Final = 50.0
"""`scan.rate`, reads a second of open jobs in turn."""
FLIGHT_MAX: Final = 4_096
"""`lanes.flight_max`, entries sent and not yet confirmed."""
MESSAGE_BYTES: Final = 1024 * 1024
"""`limits.message_bytes`, the largest frame, report and entry."""
EXECUTIONS_MAX: Final = 100_000
"""`limits.executions`, executions whose job is remembered."""
JOBS_MAX: Final = 200_000
"""`limits.jobs`, jobs looked at at once."""
LABEL_VALUES: Final = 64
"""`limits.label_values`, values of one label of a metric."""
