"""dropout-policies in pytest; nothing of it is imported before a test asks."""
