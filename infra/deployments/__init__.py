"""How the flows are deployed: schedules, work pools, the container image and the job templates of clusters."""
