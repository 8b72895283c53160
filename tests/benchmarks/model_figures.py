"""The built-in model's size and cost, and how well its mouth follows real and synthetic speech.

PLACEHOLDER
"""

def measure():
    return {}
