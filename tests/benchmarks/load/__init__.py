"""How many sessions and viewers a server carries before a stated quality floor breaks."""
