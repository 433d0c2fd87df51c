"""What an event is: plain types, kinds and formats. No Beam, no I/O, no clock."""
