"""Reading any log into one Log; user groups; candidate lists; simulated data."""
