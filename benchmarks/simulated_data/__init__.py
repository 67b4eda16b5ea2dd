"""The bench on simulated data."""
