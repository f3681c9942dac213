"""fedsi beside other simulators: the same weights, clients, batches and steps, round by round."""
