"""The front desk of a server whose sessions live in processes of their own."""
