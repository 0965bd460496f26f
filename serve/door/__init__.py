"""From where this server may be called: under which names, and from which web pages."""
