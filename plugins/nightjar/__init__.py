"""The Airflow side: the operator, how it runs a task, and the trigger form."""
