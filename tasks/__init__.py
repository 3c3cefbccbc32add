"""What runs inside the containers: verbs that read, call the nouns of `recsys`, and write.  Never imports airflow."""
