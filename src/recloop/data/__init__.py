"""Reading any log into one Dataset; user groups; candidate lists; simulated data."""
