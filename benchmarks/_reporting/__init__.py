"""Tables, figures, claims and the report, made from the results of any suite."""
