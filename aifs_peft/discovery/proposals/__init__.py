"""First stage: cheap guesses at which examples go against a shortcut. They need only be roughly right."""
