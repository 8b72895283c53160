"""Wav2Lip: networks of the whole family, read from the users' own checkpoints, and the lip-sync model around them."""
