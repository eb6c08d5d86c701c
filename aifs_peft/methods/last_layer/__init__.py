"""Methods that train as usual, and then fit the last layer again on stored latents."""
