"""The captioning model in each framework, as a user of the library would write it."""
