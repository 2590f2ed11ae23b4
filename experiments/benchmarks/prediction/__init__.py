"""Energy predictors: error beside other learners, coverage, speed, transfer, choice of labels."""
