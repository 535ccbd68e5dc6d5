"""What a span is, and what the attributes of many programs mean in it."""
