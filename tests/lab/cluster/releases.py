"""What jobs, frames and answers of Bacalhau's releases do differently (design/bacalhau.md 0.2)."""

from typing import Final

import msgspec

NEW_STATES: Final = {
    "New": 1,
    "AskForBid": 2,
    "AskForBidAccepted": 3,
    "AskForBidRejected": 4,
    "BidAccepted": 5,
    "BidRejected": 8,
    "Completed": 9,
    "Failed": 10,
    "Cancelled": 11,
}

_SOURCE: Final = '"Params":{"URL":"data:application/wasm;base64,AGFzbQ=="}'
_LIMITS: Final = '"Resources":{"CPU":"50m","Memory":"32mb"},'
_OLD_ENGINE: Final = (
    '"Engine":{"Type":"wasm","Params":{"EntryModule":{"Source":{' + _SOURCE + ',"Type":"inline"},"Target":"/m.wasm"},'
    '"EntryPoint":"_start"}},"Publisher":{"Type":""},' + _LIMITS
)
_NEW_ENGINE: Final = (
    '"Engine":{"Type":"wasm","Params":{"EntryModule":"/m.wasm","Entrypoint":"_start"}},"Publisher":{"Type":""},'
    '"InputSources":[{"Source":{"Type":"inline",' + _SOURCE + '},"Alias":"","Target":"/m.wasm"}],' + _LIMITS
)


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One release. `ncl`: envelopes on `bacalhau.global.compute.*`, else raw JSON on `node.*`.

    `versioned`: reruns and updates, versions from 1, echoes. `partitions`: a batch job's executions have an index.
    `cancels`: a stop is sent to the node (`CancelExecution`); `rejects`: so is a bid turned down. `approved`: the state
    that an approved execution shows. `direct_bids`: a direct start is answered. `count`: of ops and daemon jobs.
    """

    name: str
    ncl: bool
    versioned: bool
    partitions: bool
    cancels: bool
    rejects: bool
    approved: str
    direct_bids: bool
    count: int
    orchestrator_id: bool
    engine: str
    network: tuple[str, str]
    """A task's `Network` over REST, and in an AskForBid."""

    def tasks(self, timeouts: str, *, wire: bool) -> msgspec.Raw:
        """`Tasks` of a job; *timeouts* is a JSON object."""
        network = self.network[wire]
        return msgspec.Raw(f'[{{"Name":"main",{self.engine}{network}"Timeouts":{timeouts}}}]'.encode())

    @property
    def is_oldest(self) -> bool:
        """1.5.0 alone has some things of its own (design/bacalhau.md 0.3)."""
        return self.name == "v1.5.0"

    @property
    def meta(self) -> msgspec.Raw:
        """`Meta` of a job."""
        own = '"bacalhau.org/orchestrator.id":"n-orch",' if self.orchestrator_id else ""
        return msgspec.Raw(
            f'{{{own}"bacalhau.org/requester.id":"n-orch","bacalhau.org/server.instance.id":"0035969ec53f"}}'.encode()
        )


_NONE: Final = '"Network":{"Type":"None"},'
_DEFAULT: Final = '"Network":{"Type":"Default"},'

RELEASES: Final = (
    Release(
        name="v1.5.0",
        ncl=False,
        versioned=False,
        partitions=False,
        cancels=True,
        rejects=True,
        approved="BidAccepted",
        direct_bids=False,
        count=1,
        orchestrator_id=False,
        engine=_OLD_ENGINE,
        network=(_NONE, _NONE),
    ),
    Release(
        name="v1.5.2",
        ncl=False,
        versioned=False,
        partitions=False,
        cancels=True,
        rejects=True,
        approved="AskForBidAccepted",
        direct_bids=True,
        count=1,
        orchestrator_id=True,
        engine=_OLD_ENGINE,
        network=(_NONE, _NONE),
    ),
    Release(
        name="v1.6.1",
        ncl=True,
        versioned=False,
        partitions=True,
        cancels=True,
        rejects=True,
        approved="AskForBidAccepted",
        direct_bids=False,
        count=1,
        orchestrator_id=True,
        engine=_OLD_ENGINE,
        network=(_NONE, _NONE),
    ),
    Release(
        name="v1.7.0",
        ncl=True,
        versioned=False,
        partitions=True,
        cancels=False,
        rejects=False,
        approved="BidAccepted",
        direct_bids=False,
        count=0,
        orchestrator_id=True,
        engine=_NEW_ENGINE,
        network=(_DEFAULT, ""),
    ),
    Release(
        name="v1.9.3",
        ncl=True,
        versioned=True,
        partitions=True,
        cancels=True,
        rejects=False,
        approved="BidAccepted",
        direct_bids=False,
        count=0,
        orchestrator_id=True,
        engine=_NEW_ENGINE,
        network=(_DEFAULT, ""),
    ),
)
"""The releases of the recordings. Between them nothing new shows (design/bacalhau.md 0.1)."""
