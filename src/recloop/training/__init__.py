"""From preferences to a better language model."""
