"""Methods that look for what is spurious in words, patches, regions or columns that people can name or see."""
