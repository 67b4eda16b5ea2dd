"""What each draft earned, whether that can be trusted, and which draft to prefer."""
