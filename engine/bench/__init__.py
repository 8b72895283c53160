"""Measures this machine: what every stage costs, and which runtime and precision a lip-sync model is fastest with."""
