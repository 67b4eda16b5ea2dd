"""What is asked of a language model, what it answers, and how answers become vectors."""
