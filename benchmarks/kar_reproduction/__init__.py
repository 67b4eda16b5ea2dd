"""KAR's protocol on MovieLens-1M."""
