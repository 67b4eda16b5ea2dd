"""What each completion earned, whether that can be trusted, and which completion to prefer."""
