"""Transports what the engine makes: WebRTC out and in, HTTP control beside it."""
