"""The unrolled network as text, SVG and PNG. The floor above policies: a picture takes a policy."""
