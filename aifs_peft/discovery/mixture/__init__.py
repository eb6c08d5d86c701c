"""The additive latent mixture: fitting, cross-fitting, refinement, several attributes as one."""
