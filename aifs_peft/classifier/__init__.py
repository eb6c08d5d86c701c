"""`AIFSClassifier`: shortcut-free classification on latents, with scikit-learn's conventions."""

from aifs_peft.classifier.estimator import AIFSClassifier

__all__ = ["AIFSClassifier"]
