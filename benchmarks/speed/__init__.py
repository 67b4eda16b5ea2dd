"""Each path of a run against a named alternative, in one run on one machine."""
