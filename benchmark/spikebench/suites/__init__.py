"""Suite files, run keys, the plan, and the runner of one run."""
