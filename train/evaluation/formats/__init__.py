"""What is asked: suites, their items and graders as people write them, and where suites come from."""
