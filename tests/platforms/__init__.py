"""The host's code for Windows and macOS, run here: with an executable that behaves as theirs."""
