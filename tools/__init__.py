"""Programs for those who work on this: neither the package nor its tests need them."""
