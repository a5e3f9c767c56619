"""What a reduction is: the result object, the four roles that make it, and the budget that bounds it."""
