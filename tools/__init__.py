"""What people run by hand: look at a pipeline, prepare it, ask its models, publish its results."""

import stages as stages  # first of all, it refuses a Python that lacks the project's packages
