"""Learning objectives: warm-up regression, priors, rewards, rollouts, policy objectives."""
