"""Programs that try the whole in a surrounding of its own; `make` runs them, and no test does."""
