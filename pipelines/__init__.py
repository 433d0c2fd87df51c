"""How the transforms are wired, configured and run."""
