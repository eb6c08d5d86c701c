"""Methods that change how often examples are drawn or how much they weigh; the loss of an example stays as it is."""
