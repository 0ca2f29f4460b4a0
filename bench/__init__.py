"""How fast it is, as ratios against references that are measured in the same run."""
