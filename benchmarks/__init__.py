"""Speed, measured beside the tools one would otherwise use; each module runs on its own."""
