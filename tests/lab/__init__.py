"""The lab: programs that try the whole daemon for as long as you want. `make` runs them (`make help` lists them).

`simulation` and `cluster` run seeds in virtual time, the others start real servers and daemons. The tests run short
forms of the two simulations and of the torture.
"""
