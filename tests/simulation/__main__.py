"""`python -m tests.simulation`: three daemons and every fault, seed by seed."""

import sys
from typing import Final

from tests.seeds import Simulation, main
from tests.simulation.broken import BROKEN
from tests.simulation.world import FAULTS, World

SIMULATION: Final = Simulation(
    module="tests.simulation",
    about=__doc__,
    world=World,
    faults=FAULTS,
    broken=BROKEN,
    title="what went wrong, by kind:",
)

if __name__ == "__main__":
    sys.exit(main(SIMULATION))
