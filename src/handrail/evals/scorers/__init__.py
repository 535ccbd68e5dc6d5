"""What scores a trial: built-in scorers, LLM judges and adapters for other libraries."""
