"""The daemon: put together (`assemble`), carried on (`carry`), supervised and watched. Decides nothing about states."""
