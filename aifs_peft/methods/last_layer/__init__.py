"""Methods that train the last layer again."""
