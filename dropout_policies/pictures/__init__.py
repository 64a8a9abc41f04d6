"""The unrolled network as text, SVG and PNG. One level above policies: it draws a policy."""
