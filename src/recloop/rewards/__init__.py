"""The reward of each completion, whether it can be trusted, and which completion to prefer."""
