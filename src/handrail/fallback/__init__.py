"""What happens when the model is not sure or not available: routing before it, one stricter retry after it."""
