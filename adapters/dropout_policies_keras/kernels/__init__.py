"""What a backend runs compiled in one piece, and products with a weight step after step."""
