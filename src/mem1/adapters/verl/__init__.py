"""OUR EPISODES AND OUR LEARNING, ON VERL'S CLUSTER: one config, both trainers.

    RunConfig -> data     -> parquet files, as verl's data set reads them
    RunConfig -> options  -> verl's own settings
    task -> EpisodeLoop   -> run_episode, verl's servers sampling -> one row for each context
    rows -> layout        -> optimizer steps that hold whole groups
    rows -> credit        -> advantages chained over the contexts of a trajectory, weights
    rows -> losses        -> one update of the policy and of the critic

Ray's actors load `mem1.adapters.verl.plugin`, which registers the loop and the trainer. Only that
module, `agent_loop`, `losses`, `trainer` and `__main__` import verl.
"""
