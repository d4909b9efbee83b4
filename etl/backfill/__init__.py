"""Read files of SIDs into the queue."""
