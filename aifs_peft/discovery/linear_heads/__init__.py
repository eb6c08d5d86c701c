"""Last stage: linear heads for the inferred groups. Logistic, additive, and the choice among them."""
