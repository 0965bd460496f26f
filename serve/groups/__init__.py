"""Many teams on one server: who goes to the engine next."""
