"""Methods that add a penalty to the loss, or change the gradient, without looking for conflicting examples."""
