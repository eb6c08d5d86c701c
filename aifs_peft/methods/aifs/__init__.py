"""Methods that find spurious directions, or make a mask from attributions, and intervene on latents along them.

`aifs` is this library's default; `aifs-paper` is the published recipe to the letter.
"""
