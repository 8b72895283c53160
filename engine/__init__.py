"""Visavis engine: makes a talking head's pictures and sound; knows neither HTTP nor WebRTC."""
