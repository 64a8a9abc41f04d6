"""What a backend runs as one compiled function, and fast products with a weight at each step."""
