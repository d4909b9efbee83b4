"""Keep to the API's limit: slots in the database, permits in the process."""
