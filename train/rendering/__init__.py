"""From conversations to token ids and labels, by the base's own chat template, as its server does it."""
