"""A Bacalhau cluster: users, one orchestrator, some nodes; what happens, what is written, which frames are sent.

Times are as measured (design/bacalhau.md 6.2, 2.5), the timers those of the recorded networks or a little shorter, so
that much happens in few seconds. The record is `tests.lab.cluster.record`, plans are `tests.lab.cluster.scheduler`'s.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final

from tests.lab.cluster.frames import Message, encode
from tests.lab.cluster.node import DONE, Node
from tests.lab.cluster.record import BASE_NS, PENDING, RUNNING, STOPPED, Event, Execution, Job, Spec
from tests.lab.cluster.releases import Release
from tests.lab.cluster.scheduler import Plan, evaluate

AGAIN_S: Final = 5.0
"""An evaluation that failed is tried again after so long."""
BACKOFF_S: Final = 0.3
"""Queue backoff."""
DISCONNECT_S: Final = 1.0
"""So long after its last sign of life a node counts as gone."""
REEVALUATE_S: Final = 0.5
"""1.8+: so long after a node came or went the open jobs are evaluated."""


class Cluster:
    """Everything of Bacalhau's. *at* runs something after a delay; *publish* is its NATS.

    *steady*: no evaluation fails twice in a row.
    """

    def __init__(
        self,
        release: Release,
        rng: Random,
        *,
        at: Callable[[float, Callable[[], None]], None],
        clock: Callable[[], float],
        publish: Callable[[str, bytes, str], None],
        say: Callable[[str, str], None] | None,
        steady: bool,
    ) -> None:
        self.release: Final = release
        self.rng: Final = rng
        self._world_at: Final = at
        self._clock: Final = clock
        self._publish: Final = publish
        self._say: Final = say
        self.jobs: dict[str, Job] = {}
        self.nodes: dict[str, Node] = {}
        self.steady: Final = steady
        self.mislabels = not steady
        """Whether who asks for an update or a rerun at the same time as others may have read an older version."""
        self._failed: set[tuple[str, str]] = set()
        self.up = True
        self.happened: Counter[str] = Counter()
        """What happened how often, by kind."""
        self._ns = BASE_NS
        self._number = 1
        self._pending = 0
        self._evaluations: dict[str, deque[str]] = {}
        self._busy: set[str] = set()
        self._delayed: set[str] = set()
        self._unfinished: list[tuple[Job, str]] = []

    # -- time ---------------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The orchestrator's clock, never twice the same."""
        self._ns = max(self._ns + 1000, BASE_NS + int(self._clock() * 1e9))
        return self._ns

    def ns_of(self, time: float) -> int:
        """Its clock at a time of the run."""
        return BASE_NS + int(time * 1e9)

    @property
    def quiet(self) -> bool:
        """Whether nothing will happen any more unless somebody does something."""
        waits = any(job.may_be_late and not job.over for job in self.jobs.values())
        return not self._pending and not waits

    def at(self, delay: float, act: Callable[[], None]) -> None:
        """Do *act* after *delay* seconds; until then the cluster is not quiet."""
        self._pending += 1

        def acts() -> None:
            self._pending -= 1
            act()

        self._world_at(delay, acts)

    def between(self, low: float, high: float) -> float:
        """Some seconds from *low* to *high*."""
        return low + (high - low) * self.rng.random()

    def chance(self, share: float) -> bool:
        """Whether it happens now, what happens so often."""
        return self.rng.random() < share

    def _name(self, kind: str) -> str:
        bits = f"{self.rng.getrandbits(80):020x}"
        return f"{kind}-{bits[:8]}-0000-4000-8000-{bits[8:]}"

    # -- users --------------------------------------------------------------------------------------------------------

    def submit(self, spec: Spec) -> Job:
        """A new job: Pending, and its registration to be evaluated."""
        now_ns = self.now_ns()
        namespace = "default" if self.chance(0.8) else "team b"
        job = Job(self.release, self._name("j"), namespace, spec, now_ns)
        self.jobs[job.id] = job
        self._tell(job, Event("Submission", "Job submitted", "Pending"))
        self.enqueue(job, "register")
        return job

    def stop(self, job: Job) -> None:
        """`DELETE`: Stopped at once; its executions are cancelled by an evaluation."""
        if not self.up or job.over:
            return
        self.happened["stop"] += 1
        job.stand("Stopped", "", self.now_ns())
        event = Event("Scheduling", "Job requested to stop before completion", "Stopped", {"Reason": ""})
        self._tell(job, event)
        self.enqueue(job, "cancel")

    def rerun(self, job: Job) -> None:
        """`PUT …/rerun` (1.8+): Pending again, in the next version."""
        if not self.up or not self.release.versioned or job.standing.state in ("Pending", "Queued"):
            return
        self.happened["rerun"] += 1
        job.stand("Pending", "job rerun", self.now_ns(), spec=job.spec)
        event = Event("Submission", "Job rerun requested", "Pending", {"Reason": "job rerun"})
        self._tell(job, event, label=self._label(job))
        self.enqueue(job, "rerun")

    def update(self, job: Job, spec: Spec) -> None:
        """Submitted again with another spec (1.8+): Pending again, from whatever state."""
        if not self.up or not self.release.versioned:
            return
        self.happened["update"] += 1
        job.stand("Pending", "Job update requested by user", self.now_ns(), spec=spec)
        self._tell(job, Event("Submission", "Job updated", "Pending"), label=self._label(job))
        self.enqueue(job, "update")

    def _label(self, job: Job) -> int | None:
        """What the entry that begins a version says, if it is another one (`mislabels`)."""
        if not self.mislabels or job.version <= 2 or not self.chance(0.15):
            return None
        self.happened["version mislabelled"] += 1
        return job.version - 1

    def _tell(self, job: Job, event: Event, *, label: int | None = None) -> None:
        job.add_row(event, self.now_ns(), label=label)
        if self._say is not None:
            change = job.changes[-1]
            self._say(
                "record",
                f"{job.id[:10]} entry {change.number}: v{change.version} {change.state}"
                f" (revision {job.standing.revision}; {event.message[:60]})",
            )

    # -- evaluations --------------------------------------------------------------------------------------------------

    def enqueue(self, job: Job, trigger: str, delay: float = 0.0) -> None:
        """Have the job evaluated; of one job one at a time."""
        self.at(delay + self.between(0.0003, 0.003), lambda: self._take_up(job, trigger))

    def _take_up(self, job: Job, trigger: str) -> None:
        if trigger == "queue":
            self._delayed.discard(job.id)
        if job.id not in self.jobs:
            return  # forgotten
        if not self.up:
            self._unfinished.append((job, trigger))
        elif job.id in self._busy:
            self._evaluations.setdefault(job.id, deque()).append(trigger)
        else:
            self._evaluate(job, trigger)

    def _evaluate(self, job: Job, trigger: str) -> None:
        self._busy.add(job.id)
        plan = evaluate(job, trigger, self, self.now_ns())
        self.at(self.between(0.0002, 0.004), lambda: self._end_of_evaluation(plan))

    def _end_of_evaluation(self, plan: Plan) -> None:
        job = plan.job
        if not self.up:
            self._unfinished.append((job, plan.trigger))
        elif self._fails(plan) or not self._commit(plan):
            self.happened["evaluation tried again"] += 1
            self.enqueue(job, plan.trigger, AGAIN_S)
        elif self.chance(0.3 if plan.trigger == "register" and job.spec.count > 1 else 0.01):
            # At least once: a broker that did not hear that it was done has it done again.
            self.happened["evaluation twice"] += 1
            self.enqueue(job, plan.trigger, self.between(0.0, 0.3))
        self._busy.discard(job.id)
        waiting = self._evaluations.get(job.id)
        if waiting and self.up:
            self._evaluate(job, waiting.popleft())

    def _fails(self, plan: Plan) -> bool:
        """Whether the evaluation fails for no reason of its own."""
        what = (plan.job.id, plan.trigger)
        if not self.chance(0.03) or (self.steady and what in self._failed):
            return False
        self._failed.add(what)
        return True

    def _commit(self, plan: Plan) -> bool:
        """Write what *plan* says, all of it or (False) nothing: something changed since it read."""
        job = plan.job
        if plan.again and job.id not in self._delayed:
            self._delayed.add(job.id)
            self.enqueue(job, "queue", BACKOFF_S)
        if plan.empty:
            return True
        if plan.is_outdated:
            return False
        created = [self._create(plan, node, partition, desired) for node, partition, desired in plan.created]
        if plan.state:
            job.stand(plan.state, plan.message, self.now_ns())
        for event in plan.events:
            self._tell(job, event)
        self.happened["two entries for one revision"] += len(plan.events) > 1
        for one in created:
            event = Event("Scheduling", f"Requested execution on {one.node}", details={"NodeID": one.node})
            job.add_row(event, self.now_ns(), execution=one.id)
            self._order(Message(kind="AskForBid", execution=one, number=self._next(), direct=one.direct))
        for one, _, desired, compute, event in plan.updates.values():
            job.add_row(event, self.now_ns(), execution=one.id)
            self._update(one, desired, compute, event)
        return True

    def _create(self, plan: Plan, node: str, partition: int, desired: int) -> Execution:
        one = Execution(
            self._name("e"),
            plan.job,
            plan.read,
            node=node,
            partition=partition,
            desired=desired,
            now_ns=self.now_ns(),
        )
        plan.job.executions[one.id] = one
        return one

    def _update(self, one: Execution, desired: int, compute: str, event: Event) -> None:
        """The scheduler's write to an execution, and the message that the node gets of it."""
        before_desired, before = one.desired, one.compute
        one.revision += 1
        one.modified_ns = self.now_ns()
        one.desired = desired
        release = self.release
        if desired == RUNNING:
            one.compute = compute
            if before_desired == PENDING:
                self._order(Message(kind="BidAccepted", execution=one, number=self._next()))
            return
        gone = compute == "Failed"
        if not release.rejects or gone:
            one.compute = compute
            if release.versioned:
                self._order(Message(kind="CancelExecution", execution=one, number=self._next()))
            return
        # 1.5 to 1.6.1: the desired state alone is written; what was asked to end is ended a little later.
        turned_down = before_desired == PENDING and before == "AskForBidAccepted"
        kind = "BidRejected" if turned_down else "CancelExecution"
        self._order(Message(kind=kind, execution=one, number=self._next(), reason=event.message))
        self.at(self.between(0.001, 0.003), lambda: self._cancel(one, compute))

    def _cancel(self, one: Execution, compute: str) -> None:
        if not one.ended:
            one.compute = compute
            one.revision += 1

    # -- the orchestrator as the schedulers see its nodes -------------------------------------------------------------

    def connected(self, node: str) -> bool:
        """Whether the orchestrator takes *node* for connected."""
        return self.nodes[node].connected

    def matching(self, zone: str) -> Sequence[str]:
        """The connected nodes of *zone* in no order that anybody could rely on."""
        found = [node.name for node in self.nodes.values() if node.connected and (not zone or zone in node.zones)]
        if len(found) > 1:
            self.rng.shuffle(found)
        return found

    # -- orders -------------------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._number += 1 + int(self.chance(0.4))
        return self._number

    def _order(self, message: Message, *, echo_s: float = 0.0) -> None:
        """Send *message* to its node: in the order of their numbers, 0 to 15 ms after the write."""
        node = self.nodes[message.execution.node]
        if not echo_s:
            node.orders.append(message)
        if not node.connected:
            return
        delay = self.between(0.0003, 0.004) if self.chance(0.9) else self.between(0.004, 0.015)
        node.orders_at = max(node.orders_at, self._clock() + delay + echo_s)
        self.at(node.orders_at - self._clock(), lambda: self._deliver(node, message))

    def _deliver(self, node: Node, message: Message) -> None:
        if not self.up:
            return
        self._send(message)
        node.get(message)

    def _send(self, message: Message) -> None:
        subject, data = encode(self.release, message, self.now_ns())
        mark = "*" if message.kind == "CancelExecution" and message.event else ""
        if message.kind == "BidResult":
            mark = " yes" if message.accepted else " no"
        one = message.execution
        self._publish(subject, data, f"{message.kind}{mark} {one.id[:10]} #{message.number} on {one.node}")

    # -- nodes --------------------------------------------------------------------------------------------------------

    def add_node(self, zones: set[str]) -> Node:
        """A node joins."""
        node = Node(self, f"n-c{len(self.nodes) + 1}", zones)
        self.nodes[node.name] = node
        self._reevaluate()
        return node

    def _reevaluate(self) -> None:
        if not self.release.versioned:
            return  # before 1.8 nobody looks until the job's next evaluation
        for job in self.jobs.values():
            if not job.over:
                self.enqueue(job, "node", REEVALUATE_S)

    def hear(self, node: Node, message: Message) -> None:
        """A node's message: heard by whoever listens, and a little later by the orchestrator, if it does."""
        if not self.up:
            return
        self._send(message)
        if node.connected:
            self.at(self.between(0.0003, 0.003), partial(self._hear, message))

    def _hear(self, message: Message) -> None:
        """The store's rules: what does not fit is refused, and nobody is told."""
        if not self.up:
            return
        one, job, kind = message.execution, message.execution.job, message.kind
        if kind == "CancelResult" or one.ended or job.executions.get(one.id) is not one:
            return
        if kind == "BidResult" and message.accepted:
            if one.compute == "New" and one.desired != STOPPED:
                one.compute = "AskForBidAccepted"
                one.revision += 1
                if not one.direct:
                    self.enqueue(job, "bid")
            return
        if kind == "RunResult" and one.desired != RUNNING:
            return
        if kind == "RunResult":
            ended = "Failed" if job.spec.long_running else "Completed"
        else:
            ended = "AskForBidRejected" if kind == "BidResult" else "Failed"
        one.compute, one.desired = ended, STOPPED
        one.revision += 1
        one.modified_ns = self.now_ns()
        job.add_row(message.event or DONE, self.now_ns(), execution=one.id, version=one.version)
        if self.release.versioned:
            echo = Message(
                kind="CancelExecution",
                execution=one,
                number=self._next(),
                event=message.event,
                event_ns=message.event_ns,
            )
            self._order(echo, echo_s=self.between(0.001, 0.01) if self.chance(0.97) else self.between(0.1, 1.1))
        self.enqueue(job, "execution")

    # -- what goes wrong with nodes and orchestrator ------------------------------------------------------------------

    def kill_node(self, node: Node, back_s: float | None) -> None:
        """It is gone at once, and back after *back_s* seconds with its data (None: for good)."""
        if not node.alive:
            return
        self.happened["node lost" if back_s is None else "node restart"] += 1
        node.die()
        life = node.life
        self.at(DISCONNECT_S, lambda: self._disconnect(node, life))
        if back_s is not None:
            self.at(back_s, lambda: self._revive(node))

    def _disconnect(self, node: Node, life: int) -> None:
        if node.life == life and not node.alive and node.connected:
            node.connected = False
            self._reevaluate()

    def _revive(self, node: Node) -> None:
        node.alive = True
        if not self.up:
            return  # it will shake hands when the orchestrator is back
        if self._say is not None:
            self._say("cluster", f"{node.name} is back")
        node.recover()

    def shake_hands(self, node: Node) -> None:
        """Node and orchestrator find each other again: each sends again what the other may have missed."""
        node.connected = True
        if self.release.ncl:
            orders = list(node.orders)
            node.orders.clear()
            calls = node.sent[-self.rng.randint(1, 12) :]
            for message in orders:
                self.happened["order sent again"] += 1
                self._deliver(node, message)
            for message in calls:
                self.happened["result sent again"] += 1
                self.hear(node, message)
        self._reevaluate()

    def kill_orchestrator(self) -> None:
        """It is gone, its NATS server too."""
        self.happened["orchestrator restart"] += 1
        self.up = False
        for node in self.nodes.values():
            node.connected = False

    def revive_orchestrator(self) -> None:
        """It is back with its data. Unfinished evaluations are taken up again, perhaps finished ones too."""
        self.up = True
        unfinished, self._unfinished = self._unfinished, []
        for name, waiting in self._evaluations.items():
            unfinished += [(self.jobs[name], trigger) for trigger in waiting if name in self.jobs]
        self._evaluations.clear()
        for job, trigger in unfinished:
            self.enqueue(job, trigger, self.between(0.0, 1.5))
        for job in self.jobs.values():
            if not job.over and job.version <= 1 and self.chance(0.3):
                self.happened["evaluation twice"] += 1
                self.enqueue(job, "register", self.between(0.0, 1.5))
        for node in self.nodes.values():
            if node.alive:
                if self.chance(0.5):  # before they shook hands nobody there takes it
                    self.at(0.05, partial(self._too_early, node))
                self.at(self.between(0.2, 2.0), partial(self._greet, node))

    def _greet(self, node: Node) -> None:
        if self.up:
            self.shake_hands(node)

    def _too_early(self, node: Node) -> None:
        if not node.connected and self.release.ncl:
            for message in node.sent[-2:]:
                self.hear(node, message)

    def forget(self, job: Job) -> None:
        """The job is gone from the store, with all that belongs to it."""
        self.happened["job forgotten"] += 1
        del self.jobs[job.id]
        job.executions.clear()

    def go_back(self, ns: int) -> None:
        """The store is as it was at *ns*, from a backup; what came after it never was."""
        self.happened["record went back"] += 1
        self._evaluations.clear()
        for job in list(self.jobs.values()):
            if job.standing_at(ns) is None:
                del self.jobs[job.id]
                job.executions.clear()
            else:
                job.go_back(ns)

    def housekeep(self) -> None:
        """Once a second: batch and ops jobs whose time is over are evaluated."""
        if not self.up:
            return
        now_ns = self.now_ns()
        for job in self.jobs.values():
            if not job.over and job.is_late(now_ns):
                self.enqueue(job, "timeout")
