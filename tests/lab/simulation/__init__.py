"""The real join, fold and lanes of three daemons under a seeded scheduler, against models of everything around them.

The models and the oracle are written apart from what they judge: nothing here uses `consumer.core.verify` or
`consumer.core.history` to say what is right (a daemon's start uses the former, as a real start does).
`python -m tests.lab.simulation --help` runs it.
"""
