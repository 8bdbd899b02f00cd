"""What a gradient means, in numbers: a chain of neurons, one digit, and many examples together.

A nudge is the negative gradient: which way a number should move to lower the cost, and, beside
the nudges to other numbers, how much it matters. Numbers only; `jaxnn.plots` draws them.
"""
