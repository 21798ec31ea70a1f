"""`python -m tests.lab.cluster`: a Bacalhau cluster, one or two daemons and every fault, seed by seed."""

import sys
from typing import Final

from tests.lab.cluster.broken import BROKEN
from tests.lab.cluster.world import FAULTS, World
from tests.lab.seeds import Simulation, main

CLUSTER: Final = Simulation(
    module="tests.lab.cluster",
    about=__doc__,
    world=World,
    faults=FAULTS,
    broken=BROKEN,
    title="{updates} updates\nwhat happened and what went wrong, by kind:",
)

if __name__ == "__main__":
    sys.exit(main(CLUSTER))
