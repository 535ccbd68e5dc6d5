"""What separates two eval runs, case by case, word by word and step by step."""
