"""The one reader of files that people write: serve.toml, wardrobe.toml, configs, suites, policies."""
