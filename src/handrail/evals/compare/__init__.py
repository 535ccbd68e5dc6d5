"""Two eval runs compared case by case, word by word and step by step."""
