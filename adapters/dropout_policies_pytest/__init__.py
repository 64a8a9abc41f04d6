"""The pytest plugin of dropout-policies. It imports nothing before a test needs it."""
