"""`python -m tests.lab.simulation`: three daemons and every fault, seed by seed."""

import sys
from typing import Final

from tests.lab.seeds import Simulation, main
from tests.lab.simulation.broken import BROKEN
from tests.lab.simulation.world import FAULTS, World

SIMULATION: Final = Simulation(
    module="tests.lab.simulation",
    about=__doc__,
    world=World,
    faults=FAULTS,
    broken=BROKEN,
    title="what went wrong, by kind:",
)

if __name__ == "__main__":
    sys.exit(main(SIMULATION))
