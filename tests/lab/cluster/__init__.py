"""A Bacalhau cluster in virtual time, and the real join, lanes and pace beside it (`make simulate`).

Written after design/bacalhau.md and Bacalhau's own schedulers, apart from `consumer`: no model here uses its rules, the
decisions of its fold or its replay. The log and the lanes under every fault of JetStream's are `tests.lab.simulation`.
`python -m tests.lab.cluster --help` runs it.
"""
