"""What a user knows about an attribute (known values, metadata columns, named directions), and what is made of it."""
