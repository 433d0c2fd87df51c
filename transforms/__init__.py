"""What happens to an event: thin Beam skins over plain functions."""
