"""The catalog: what Snapkeep knows. Tables, queries, migrations, secrets."""
