"""Methods that look for attributes in words, patches or regions."""
