"""recloop closes the loop between a recommender and a language model."""

__version__ = "0.1.0"
