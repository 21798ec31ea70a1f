"""What the settings make of each part is what the part has by itself: `consumer.defaults` states each default once."""

import inspect

import msgspec
import pytest

from consumer.core import Lanes, ReadingOptions
from consumer.daemon.following import reading_options
from consumer.derive import DerivationSettings
from consumer.settings import Settings

SETTINGS = Settings()


@pytest.mark.parametrize(
    ("made", "own"),
    [
        (reading_options(SETTINGS), ReadingOptions()),
        (
            DerivationSettings(executions_max=SETTINGS.limits.executions, jobs_max=SETTINGS.limits.jobs),
            DerivationSettings(),
        ),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_the_settings_make_is_what_the_part_has_by_itself(made: msgspec.Struct, own: msgspec.Struct) -> None:
    """Field by field, so that one that drifts is named: `concurrency` once was 16 in one place and 8 in another."""
    assert msgspec.structs.asdict(made) == msgspec.structs.asdict(own)


def test_the_lanes_have_the_bounds_of_the_settings() -> None:
    """Those that their constructor has defaults for."""
    own = {name: one.default for name, one in inspect.signature(Lanes).parameters.items()}
    assert (own["flight_max"], own["message_max"]) == (SETTINGS.lanes.flight_max, SETTINGS.limits.message_bytes)
