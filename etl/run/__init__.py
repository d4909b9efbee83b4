"""Run the job: the stages in their order."""
