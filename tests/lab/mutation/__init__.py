"""Mutation testing of the pure parts (`make mutate`): change one thing, and see whether a test goes red.

`mutants` says what is changed, `running` runs the tests that reach it, `__main__` chooses, remembers and reports.
"""
