"""Visavis on many machines, with Ray: workers are Ray actors, and any number of gateways shares one directory of them.

Ray is an optional extra (``requirements.txt`` here); nothing outside this package imports it.
"""
