"""Who may use the server: keys, embeds, tokens, rates, the waiting line and credentials for TURN."""
