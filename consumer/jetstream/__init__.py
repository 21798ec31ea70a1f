"""NATS JetStream: topology, input, writer, recovery, and a server of our own. Carries out; decides nothing.

Everything here follows design/nats.md.
"""
