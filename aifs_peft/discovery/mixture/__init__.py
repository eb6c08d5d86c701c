"""Second stage: the additive latent mixture. Fitting, cross-fitting, refinement, several attributes as one."""
