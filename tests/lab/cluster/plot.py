"""What is going to happen in a run, all of it thrown at its start or as it goes: what users do, and what goes wrong.

What a fault does to a frame or an answer that is under way is `tests.lab.cluster.world`'s.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from tests.lab.cluster.daemon import Life
from tests.lab.cluster.record import Job, Spec

if TYPE_CHECKING:
    from tests.lab.cluster.world import World


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of run. *weight*: of a hundred so many are of this kind.

    *lists*, *turns*: whether the join lists by itself, and reads open jobs in turn. *harm*: whether anything goes wrong
    but gaps of the tap. *patience_s*: so long after the cluster has come to rest everything must be in the log.
    """

    name: str
    weight: int
    patience_s: float
    lists: bool = True
    turns: bool = True
    harm: bool = True


USUAL: Final = Kind(name="usual", weight=80, patience_s=25.0)
HINTS: Final = Kind(name="hints", weight=8, patience_s=6.0, lists=False, turns=False, harm=False)
"""Nothing goes wrong and nothing is looked for: each state must be found by its frames (5.05 s: the last repeat)."""
GAPS: Final = Kind(name="gaps", weight=8, patience_s=6.0, lists=False, harm=False)
"""No list but the one after a gap: what changed unheard must be found by it."""
FORGOTTEN: Final = Kind(name="forgotten", weight=2, patience_s=55.0)
"""A job vanishes from the record: that is believed only after many answers."""
BACK: Final = Kind(name="back", weight=2, patience_s=55.0)
"""The record goes back: likewise."""
KINDS: Final = (USUAL, HINTS, GAPS, FORGOTTEN, BACK)

JUMPS_S: Final = (0.5, 5.0, 60.0)


class Plot:
    """The happenings of one run."""

    def __init__(self, world: "World", kind: Kind) -> None:
        self.world: Final = world
        self.kind: Final = kind
        self.until: Final = world.rng.uniform(2.0, 6.0)
        """From then on nothing goes wrong any more, and nobody does anything."""
        self.daemons: Final = 2 if kind.harm and world.rng.random() < 0.25 else 1
        self.longest_jump_s = 0.0

    def begin(self) -> None:
        """Put everything on the world's agenda."""
        world, until = self.world, self.until
        at, rng = world.at, world.rng
        for number in range(rng.randint(1, 3)):
            world.cluster.add_node({"a"} if number or rng.random() < 0.7 else set())
        names = [f"daemon{number + 1}" for number in range(self.daemons)]
        world.faults["two daemons"] += self.daemons - 1
        for name in names:
            at(rng.choice((0.0, 0.0, rng.random())) if self.kind.harm else 0.0, world.start, name)
        for _ in range(rng.randint(1, 4)):
            at(rng.uniform(0.1, until * 0.6), self._submit)
        if self.kind.harm:
            self._plan_harm(names)
        elif self.kind.turns:
            for _ in range(rng.randint(1, 2)):
                at(rng.uniform(0.3, until), self._gap, names[0])
        at(1.0, self._housekeep)
        at(until, self._calm_down)

    def _plan_harm(self, names: list[str]) -> None:
        world, until = self.world, self.until
        at, rng = world.at, world.rng
        for _ in range(rng.choice((0, 1, 1, 2))):
            zones = {"a", "x"} if rng.random() < 0.8 else set()
            at(rng.uniform(0.2, until), self._add_node, zones)
        for _ in range(rng.choice((0, 0, 1, 2))):
            at(rng.uniform(0.1, until), self._hit_node)
        if rng.random() < 0.2:
            at(rng.uniform(0.1, until * 0.8), self._restart_orchestrator)
        for name in names:
            if rng.random() < 0.25:
                self._take_orchestrator_away(name)
            for act, share in ((self._gap, 0.4), (self._kill, 0.25), (self._pause, 0.15), (self._jump, 0.15)):
                if rng.random() < share:
                    at(rng.uniform(0.1, until), act, name)
        if self.kind is FORGOTTEN:
            at(rng.uniform(until * 0.5, until), self._forget)
        elif self.kind is BACK:
            at(rng.uniform(until * 0.5, until), self._go_back)

    def _calm_down(self) -> None:
        self.world.say("world", "from now on nothing goes wrong")
        self.world.calm = True

    def _housekeep(self) -> None:
        self.world.cluster.housekeep()
        self.world.at(1.0, self._housekeep)

    # -- users --------------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        world, rng = self.world, self.world.rng
        if not world.cluster.up:
            world.at(0.3, self._submit)
            return
        job = world.cluster.submit(self._spec() if self.kind.harm else self._plain_spec())
        world.jobs[job.id] = job
        left = max(self.until - world.now, 0.0)
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            world.at(rng.uniform(0.0, left), self._act, job)
        if self.kind.harm and rng.random() < 0.25:  # what a timeout leaves behind, and then two new lives at once
            world.at(rng.uniform(0.2, 2.5), self._again_and_again, job)

    def _plain_spec(self) -> Spec:
        """A job that some node takes at once, so that frames tell all there is to tell."""
        rng = self.world.rng
        kind = rng.choice(("batch", "batch", "ops", "service"))
        fails = rng.choice((0.0, 0.3, 1.0))
        return Spec(type=kind, count=self.world.release.count if kind == "ops" else 1, fails=fails)

    def _spec(self) -> Spec:
        rng, count = self.world.rng, self.world.release.count
        zone = rng.choice(("", "", "a"))
        waits = rng.randint(1, 5)
        may_wait = rng.choice((0, waits))
        fails_at_times = rng.choice((0.0, 1.0))
        specs = {
            Spec(zone=zone, queue_timeout=may_wait): 3,
            Spec(count=rng.randint(2, 3), queue_timeout=rng.choice((0, waits, waits)), zone=zone, fails=0.3): 5,
            Spec(zone="x", queue_timeout=waits, count=rng.choice((1, 1, 2))): 2,
            Spec(fails=1.0, queue_timeout=may_wait): 1,
            Spec(total_timeout=rng.randint(1, 2), queue_timeout=rng.choice((0, 1)), fails=0.6, takes=(0.2, 2.0)): 3,
            Spec(type="ops", count=count, fails=0.3, zone=rng.choice((zone, "x"))): 2,
            Spec(type="ops", count=count, fails=0.3, total_timeout=1): 2,
            Spec(type="daemon", count=count, zone=rng.choice(("", "x"))): 2,
            Spec(type="service", count=rng.randint(1, 2), queue_timeout=may_wait, fails=fails_at_times): 4,
        }
        return rng.choices(list(specs), list(specs.values()))[0]

    def _act(self, job: Job) -> None:
        """A user does something with *job*."""
        cluster = self.world.cluster
        if job.id not in cluster.jobs:
            return
        roll = self.world.rng.random()
        if self.kind.harm and (not job.release.versioned or roll < 0.3):
            cluster.stop(job)
        elif roll < 0.75:
            cluster.rerun(job)
        else:
            spec = self._spec()
            cluster.update(job, spec if self.kind.harm and spec.type == job.spec.type else job.spec)

    def _again_and_again(self, job: Job) -> None:
        if job.id in self.world.cluster.jobs:
            self.world.cluster.rerun(job)
            self.world.at(self.world.rng.uniform(0.0, 0.02), self.world.cluster.update, job, job.spec)

    def _change_something(self) -> None:
        """While nobody hears it."""
        world, rng = self.world, self.world.rng
        if world.calm or rng.random() >= 0.6:
            return
        world.faults["changed in a gap"] += 1
        jobs = list(world.cluster.jobs.values())
        if jobs and rng.random() < 0.7:
            job = rng.choice(jobs)
            world.at(rng.uniform(0.0, 0.05), self._act, job)
        else:
            self._submit()

    # -- the cluster --------------------------------------------------------------------------------------------------

    def _add_node(self, zones: set[str]) -> None:
        self.world.cluster.add_node(zones)

    def _hit_node(self) -> None:
        world = self.world
        node = world.rng.choice(list(world.cluster.nodes.values()))
        world.say("cluster", f"{node.name} is killed")
        world.cluster.kill_node(node, world.rng.choice((0.3, 1.5, 3.0, None)))

    def _restart_orchestrator(self) -> None:
        world = self.world
        world.say("cluster", "the orchestrator is killed, its NATS server too")
        world.cluster.kill_orchestrator()
        for life in world.lives.values():
            life.connected = False
        world.at(world.rng.uniform(0.2, 1.5), self._bring_back)

    def _bring_back(self) -> None:
        world = self.world
        world.say("cluster", "the orchestrator is back")
        world.cluster.revive_orchestrator()
        for life in list(world.lives.values()):
            world.at(world.rng.uniform(0.0, 0.3), self._reconnect, life)

    def _take_orchestrator_away(self, name: str) -> None:
        """From one daemon, for up to half of the run, and often for just that."""
        world, half = self.world, self.until / 2
        length = world.rng.choice((half, world.rng.uniform(0.2, half)))
        world.faults["orchestrator away"] += 1
        world.faults["orchestrator away for half of it"] += length == half

        def goes() -> None:
            world.away[name] = world.now + length
            world.say(name, f"does not reach the orchestrator until {world.away[name]:.2f}")

        world.at(world.rng.uniform(0.0, half), goes)

    def _forget(self) -> None:
        world = self.world
        if world.cluster.jobs:
            job = world.rng.choice(list(world.cluster.jobs.values()))
            world.say("cluster", f"{job.id[:10]} is forgotten")
            world.oracle.forgetful = True
            world.cluster.forget(job)

    def _go_back(self) -> None:
        world = self.world
        back = world.rng.uniform(0.1, world.now)
        world.say("cluster", f"the record is as it was {back:.2f} s before")
        world.oracle.forgetful = world.oracle.gone_back = True
        world.cluster.go_back(world.cluster.ns_of(world.now - back))

    # -- daemons ------------------------------------------------------------------------------------------------------

    def _kill(self, name: str) -> None:
        world = self.world
        life = world.lives.pop(name, None)
        if life is None:
            return
        world.faults["daemon restart"] += 1
        world.say(name, "is killed")
        life.alive = False
        self._change_something()
        world.at(world.rng.uniform(0.0, 1.0), world.start, name)

    def _pause(self, name: str) -> None:
        world = self.world
        if (life := world.lives.get(name)) is not None:
            world.faults["daemon paused"] += 1
            life.paused_until = world.now + world.rng.uniform(0.1, 2.0)
            world.say(name, f"stands still until {life.paused_until:.2f}")

    def _jump(self, name: str) -> None:
        world = self.world
        if (life := world.lives.get(name)) is not None:
            world.faults["clock jump"] += 1
            jump = world.rng.choice(JUMPS_S)
            self.longest_jump_s = max(self.longest_jump_s, jump)
            world.say(name, f"its clock jumps {jump} s ahead")
            life.jump(jump)

    def _gap(self, name: str) -> None:
        world = self.world
        life = world.lives.get(name)
        if life is None or not life.connected:
            return
        world.faults["tap gap"] += 1
        world.say(name, "its tap loses the connection")
        life.connected = False
        self._change_something()
        world.at(world.rng.uniform(0.01, 1.0), self._reconnect, life)

    def _reconnect(self, life: Life) -> None:
        if not life.connected and self.world.cluster.up:
            self.world.connect(life)
