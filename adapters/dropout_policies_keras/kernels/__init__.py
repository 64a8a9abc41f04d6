"""Code that a backend runs as one compiled function, and fast products with a weight per step."""
