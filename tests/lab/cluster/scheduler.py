"""The schedulers: what an evaluation makes of a job (design/bacalhau.md 5.2 to 5.4; `pkg/orchestrator/scheduler`).

A plan is made of what was read and written a little later: what changed meanwhile, the store refuses, and the
evaluation is tried again. Nothing here writes.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from tests.lab.cluster.record import OVER, PENDING, RUNNING, STOPPED, Event, Execution, Job

ATTEMPTS: Final = 2
"""A node gets so many executions of a job (of one version), then it is ranked out."""

STOP: Final = "Execution stop requested because "
RAN: Final = Event("State Update", "Running", "Running", {"NewState": "Running"})
DONE: Final = Event("State Update", "Completed", "Completed", {"NewState": "Completed"})
EXECUTION_RUNS: Final = Event("Execution", "Running")
JOB_STOPPED: Final = Event("Scheduling", STOP + "job has been stopped")
JOB_FAILED: Final = Event("Scheduling", "Execution stopped due to job failure")
NODE_GONE: Final = Event("Scheduling", STOP + "node has disappeared")
NODE_REJECTED: Final = Event("Scheduling", STOP + "node has been rejected")
UPDATED: Final = Event("Scheduling", "Execution stopped for job update")
SOME_FAILED: Final = Event("Scheduling", "Job failed because one or more executions failed", "Failed")


class Nodes(Protocol):
    """The nodes as the orchestrator knows them."""

    def connected(self, node: str) -> bool: ...
    def matching(self, zone: str) -> Sequence[str]:
        """Names of the connected nodes of *zone* (empty: of all)."""


class Plan:
    """What one evaluation wants to write, and what it had read."""

    def __init__(self, job: Job, trigger: str) -> None:
        self.job: Final = job
        self.trigger: Final = trigger
        self.read: Final = job.standing
        self.created: list[tuple[str, int, int]] = []
        """New executions: node, partition, desired state."""
        self.updates: dict[str, tuple[Execution, int, int, str, Event]] = {}
        """Execution, its revision as read, desired and compute state, why."""
        self.state = ""
        self.message = ""
        self.events: list[Event] = []
        self.again = False
        """Look again a little later: the job is queued, or part of it."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.created or self.updates or self.state)

    @property
    def is_outdated(self) -> bool:
        """Whether something changed since it was read: then the store refuses it, all of it."""
        now = self.job.standing
        if self.state and (now.revision != self.read.revision or now.state in OVER):
            return True
        if any(one.revision != revision for one, revision, *_ in self.updates.values()):
            return True
        return now.version != self.read.version

    def fail(self, event: Event) -> None:
        """The job fails; executions that were to begin do not, but what is planned after this does."""
        self.state, self.message = "Failed", event.message
        self.events.append(event)
        self.created.clear()
        for name in [name for name, update in self.updates.items() if update[2] != STOPPED]:
            del self.updates[name]

    def stop(self, executions: Iterable[Execution], event: Event, compute: str) -> None:
        """End *executions*."""
        for one in executions:
            self.updates[one.id] = (one, one.revision, STOPPED, compute, event)

    def run_if_eligible(self) -> None:
        """Pending or Queued, and something runs now: Running. Unless the plan says another state already."""
        runs = any(desired == RUNNING for _, _, desired in self.created) or any(
            update[2] == RUNNING for update in self.updates.values()
        )
        if not self.state and self.read.state in ("Pending", "Queued") and runs:
            self.state = "Running"
            self.events.append(RAN)


def evaluate(job: Job, trigger: str, nodes: Nodes, now_ns: int) -> Plan:
    """Make the plan."""
    plan = Plan(job, trigger)
    active = [one for one in job.executions.values() if not one.ended and one.desired != STOPPED]
    if job.standing.state in OVER:
        plan.stop(active, JOB_STOPPED, "Cancelled")
        return plan
    lost = [one for one in active if not nodes.connected(one.node)]
    plan.stop(lost, NODE_GONE, "Failed")
    active = [one for one in active if one not in lost]
    spec = job.spec
    if job.is_late(now_ns):
        details = {"FailsExecution": "true", "Hint": "Increase the task timeout", "IsError": "true"}
        took = f"Job timed out. Job took longer than {spec.total_timeout}s"
        plan.fail(Event("Job Timeout", took, "Failed", details))
    outdated = [one for one in active if one.version < job.version]
    plan.stop(outdated, UPDATED, "Cancelled")
    active = [one for one in active if one.version == job.version]
    if spec.type in ("batch", "service"):
        _batch_or_service(plan, active, nodes, now_ns)
    else:
        _ops_or_daemon(plan, active, nodes)
    return plan


def _batch_or_service(plan: Plan, active: list[Execution], nodes: Nodes, now_ns: int) -> None:
    job = plan.job
    batch = job.spec.type == "batch"
    own = [one for one in job.executions.values() if one.version == job.version]
    done = [one for one in own if one.compute == "Completed"] if batch else []
    used: set[int] = set()
    for partition, members in _by_partition(active, done, by_index=job.release.partitions).items():
        used.add(partition)
        _approve(plan, members)
    missing = [partition for partition in range(job.spec.count) if partition not in used]
    if missing:
        _create_missing(plan, missing, own, nodes, now_ns)
    if plan.state == "Failed":
        plan.stop([one for one in active if not one.ended], JOB_FAILED, "Cancelled")
        return
    if batch and _is_complete(job, own):
        plan.created.clear()
        plan.state, plan.message = "Completed", ""
        plan.events.append(DONE)
    plan.run_if_eligible()


def _by_partition(
    active: Iterable[Execution], done: Iterable[Execution], *, by_index: bool
) -> dict[int, list[Execution]]:
    found: dict[int, list[Execution]] = {}
    for number, one in enumerate(sorted((*active, *done), key=lambda one: one.created_ns)):
        # Without indexes each execution counts for one of the Count.
        found.setdefault(one.partition if by_index else number, []).append(one)
    return found


def _approve(plan: Plan, members: list[Execution]) -> None:
    """One execution a partition: the oldest bid is approved, the others are turned down."""
    approved = plan.job.release.approved
    bids = [one for one in members if one.compute == "AskForBidAccepted"]
    served = any(one.compute == "Completed" or (not one.ended and one.desired == RUNNING) for one in members)
    for one in bids:
        if one.desired == RUNNING:
            # 1.5.2, 1.6.1: approval shows in the desired state only, and is written again with each evaluation.
            plan.updates[one.id] = (one, one.revision, RUNNING, approved, EXECUTION_RUNS)
        elif served:
            plan.stop([one], NODE_REJECTED, "BidRejected")
        else:
            plan.updates[one.id] = (one, one.revision, RUNNING, approved, EXECUTION_RUNS)
            served = True


def _create_missing(plan: Plan, missing: list[int], own: list[Execution], nodes: Nodes, now_ns: int) -> None:
    job, spec = plan.job, plan.job.spec
    tried: dict[str, int] = {}
    out: set[str] = set()
    for one in own:
        tried[one.node] = tried.get(one.node, 0) + 1
        if one.compute in ("AskForBidRejected", "Completed") or not one.ended:
            out.add(one.node)
    everybody = nodes.matching(spec.zone)
    matching = [node for node in everybody if node not in out and tried.get(node, 0) < ATTEMPTS]
    if len(matching) < len(missing):
        available = len(nodes.matching(""))
        numbers = f"requested: {len(missing)}, available: {available}, suitable: {len(matching)}."
        why = f"not enough nodes to run job. {numbers}"
        if now_ns - job.created_ns > spec.queue_timeout * 10**9:
            details = {
                "IsError": "true",
                "NodesAvailable": str(available),
                "NodesRequested": str(len(missing)),
                "NodesSuitable": str(len(matching)),
            }
            plan.fail(Event("Scheduling", why, "Failed", details))
            return
        plan.again = True
        if not matching and (plan.read.state == "Running" or plan.trigger == "register"):
            plan.state, plan.message = "Queued", f"Job queued. {why}"
            plan.events.append(Event("Queueing", plan.message, "Queued"))
    for node, partition in zip(matching, missing, strict=False):
        plan.created.append((node, partition, PENDING))


def _is_complete(job: Job, own: list[Execution]) -> bool:
    done = [one for one in own if one.compute == "Completed"]
    count = len({one.partition for one in done}) if job.release.partitions else len(done)
    return count >= job.spec.count


def _ops_or_daemon(plan: Plan, active: list[Execution], nodes: Nodes) -> None:
    job = plan.job
    ops = job.spec.type == "ops"
    own = [one for one in job.executions.values() if one.version == job.version]
    there = {one.node for one in (own if ops else active)}
    matching = nodes.matching(job.spec.zone)
    if ops and not matching and not own:
        available = len(nodes.matching(""))
        why = f"not matching nodes to run job out of {available} available nodes."
        details = {"IsError": "true", "NodesAvailable": str(available)}
        plan.fail(Event("Scheduling", why, "Failed", details))
    plan.created += [(node, 0, RUNNING) for node in matching if node not in there]
    if ops and plan.state == "Failed":
        plan.stop(active, JOB_FAILED, "Cancelled")
    elif ops and not active and not plan.created:
        # Failed executions of earlier versions count, too.
        failed = any(one.compute == "Failed" for one in job.executions.values()) or any(
            update[3] == "Failed" for update in plan.updates.values()
        )
        event = SOME_FAILED if failed else DONE
        plan.state, plan.message = event.state, event.message if failed else ""
        plan.events.append(event)
    plan.run_if_eligible()
